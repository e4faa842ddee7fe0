"""What may be wrong on this machine: disk, inbox, controller, settings, Docker, repository, queue."""

import sqlite3
import subprocess
import time
from contextlib import closing

from tests.support import queue_libraries
from tests.support.planted_faults.site import Site, fault
from tests.support.running import CLOSED_PORT
from tests.support.sick_engine import sick_engine


@fault(r"✗ disk: the disk is full: \d+ kB of 21 MB free → make room")
def full_disk(site: Site) -> None:
    place = site.directory / "small"
    place.mkdir()
    site.mount(place, "-t", "tmpfs", "-o", "size=20m,mode=0700", "teg-test")
    (place / "film.mp4").write_bytes(bytes(20_600_000))
    site.environment["TEG_DATA_PATH"] = str(place)


@fault(r"✗ inbox: .*/communication_queue.db cannot be read: No such file or directory → start the controller")
def no_inbox(site: Site) -> None:
    (site.directory / "elsewhere").mkdir()
    site.environment["TEG_CONTROLLER_DATA_PATH"] = str(site.directory / "elsewhere")


@fault(r"✗ inbox rights: .* cannot be written, so nothing would leave it → chown")
def inbox_that_cannot_be_written(site: Site) -> None:
    site.mount(site.gateway.controller_path, "-o", "bind,ro", str(site.gateway.controller_path))


@fault(r"! inbox journal: no write-ahead log: controller and gateway wait for each other → the controller should run")
def inbox_without_write_ahead_log(site: Site) -> None:
    site.inbox.connection.execute("PRAGMA journal_mode=DELETE")


@fault(r"! heartbeat: the controller has been silent for 3 h → see what the controller does: docker logs")
def silent_controller(site: Site) -> None:
    site.inbox.heartbeat(time.time_ns() // 1_000_000 - 3 * 3_600_000)


@fault(r"! settings: TEG_DATAPATH is not a setting of this gateway; did you mean TEG_DATA_PATH\?")
def misspelled_setting(site: Site) -> None:
    site.environment["TEG_DATAPATH"] = "/somewhere"


@fault(r"✗ settings: TB_PORT='mqtts' is not a whole number from 1 to 65535 → see docs/settings.md")
def wrong_setting(site: Site) -> None:
    site.environment["TB_PORT"] = "mqtts"


@fault(r"! quotes: the value of THINGSBOARD_DEVICE_NAME begins and ends with a quote → remove the quotes")
def quotes_of_an_env_file(site: Site) -> None:
    site.environment["THINGSBOARD_DEVICE_NAME"] = '"pi"'


@fault(r"✗ provisioning: only half of the pair of key and secret is set → set THINGSBOARD_PROVISION_DEVICE_SECRET too")
def half_a_key_pair(site: Site) -> None:
    site.environment["THINGSBOARD_PROVISION_DEVICE_KEY"] = "key"


@fault(r"! token file: others can read .*/token → chmod 600 .*/token")
def token_that_everybody_reads(site: Site) -> None:
    site.gateway.token_path.chmod(0o644)


@fault(r"✗ docker: the Docker Engine at unix:///nowhere.sock cannot be used: No such file .* → systemctl start docker")
def no_docker(site: Site) -> None:
    site.environment |= {"TEG_CONTROLLER_RUNTIME": "docker", "DOCKER_HOST": "unix:///nowhere.sock"}


@fault(r"✗ controller image: the image of version v7 is not on this device → assign the version on the server again")
def image_missing(site: Site) -> None:
    engine = site.stack.enter_context(sick_engine())
    site.environment |= {"TEG_CONTROLLER_RUNTIME": "docker", "DOCKER_HOST": f"unix://{engine.server_address}"}
    site.environment |= {"TEG_DEFAULT_CONTROLLER_VERSION": "v7"}


@fault(r"✗ controller repository: asking the remote 'origin' failed: .* → check its address and credentials")
def git_remote_gone(site: Site) -> None:
    path = site.directory / "repository"
    subprocess.run(["git", "init", "-q", path], check=True)
    subprocess.run(["git", "-C", path, "remote", "add", "origin", f"http://127.0.0.1:{CLOSED_PORT}/c.git"], check=True)
    site.environment["TEG_CONTROLLER_GIT_PATH"] = str(path / ".git")


@fault(r"✗ queue: redis://127.0.0.1:\d+/0 cannot be used: .* → start that server")
def queue_server_gone(site: Site) -> None:
    site.environment |= {"TEG_QUEUE_URL": f"redis://127.0.0.1:{CLOSED_PORT}/0", **queue_libraries.environment()}


@fault(r"✗ data directory: .*/data is on a file system that is mounted read-only → see dmesg: a card that fails is")
def read_only_disk(site: Site) -> None:
    site.mount(site.gateway.data_path, "-o", "bind,ro", str(site.gateway.data_path))


@fault(r"✗ files on disk: the disk has room for \d+ more files only → remove what made so many")
def no_inodes_left(site: Site) -> None:
    place = site.directory / "small"
    place.mkdir()
    site.mount(place, "-t", "tmpfs", "-o", "size=500m,nr_inodes=20,mode=0700", "teg-test")
    site.environment["TEG_DATA_PATH"] = str(place)


@fault(r"✗ inbox tables: .*has no column 'type' → see docs/controller-client.md for its tables")
def inbox_of_another_schema(site: Site) -> None:
    site.inbox.connection.execute("DROP TABLE messages")
    site.inbox.connection.execute("CREATE TABLE messages (time INTEGER, payload TEXT)")
    site.inbox.connection.execute("INSERT INTO messages VALUES (1, '{}')")


@fault(r"✗ inbox tables: .*communication_queue.db.* → see docs/controller-client.md")
def inbox_that_is_no_database(site: Site) -> None:
    site.inbox.connection.close()
    for path in site.gateway.controller_path.iterdir():
        path.unlink()
    site.gateway.inbox_path.write_bytes(b"this is no database" * 1000)


@fault(r"✗ inbox: there is no directory .*/elsewhere/deep, where the controller should write → correct")
def inbox_directory_missing(site: Site) -> None:
    site.environment["TEG_CONTROLLER_DATA_PATH"] = str(site.directory / "elsewhere" / "deep")


@fault(r"✗ database: .*/gateway.db is damaged: file is not a database → ")
def database_that_is_garbage(site: Site) -> None:
    (site.gateway.data_path / "gateway.db").write_bytes(b"garbage" * 1000)


@fault(r"✗ database: .*/gateway.db has schema 9, this gateway knows 1 → go forward again, or restore the backup")
def database_of_a_newer_gateway(site: Site) -> None:
    with closing(sqlite3.connect(site.gateway.data_path / "gateway.db")) as database, database:
        database.execute("CREATE TABLE outbox (lane INTEGER, record_id INTEGER)")
        database.execute("PRAGMA user_version=9")


@fault(r"✗ settings: .*TEG_CONTROLLER_DATA_PATH.*")
def gateways_own_directory_inside_the_shared_one(site: Site) -> None:
    site.environment["TEG_DATA_PATH"] = str(site.gateway.controller_path / "private")


@fault(r"✗ controller repository: .*/nowhere/.git does not exist → git clone it there")
def repository_missing(site: Site) -> None:
    site.environment["TEG_CONTROLLER_GIT_PATH"] = str(site.directory / "nowhere" / ".git")


@fault(r"! file roots: /no-such-root does not exist or cannot be written → mkdir /no-such-root")
def file_root_missing(site: Site) -> None:
    site.environment["TEG_FILE_ROOTS"] = "/no-such-root"


@fault(r"✗ settings: .*TEG_RPC_RUN_COMMAND.*")
def list_of_commands_missing(site: Site) -> None:
    site.environment["TEG_RPC_RUN_COMMAND"] = str(site.directory / "no-list.json")
