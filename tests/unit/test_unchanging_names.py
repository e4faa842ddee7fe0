"""What must survive every move and renaming, as literals: an upgrade meets the files, containers and servers of today.

A difference here is a change of a format: it needs a migration and a line in the changelog, never just a new literal.
"""

import sqlite3
from pathlib import Path

import gateway
from teg.adapters.docker_engine import parsing
from teg.adapters.gateway_db import clock_anchors, rpc_journal, state
from teg.adapters.gateway_db import outbox as records
from teg.adapters.gateway_db.database import Database
from teg.adapters.process_runtime import ProcessRuntime
from teg.domain.files import definitions, desired, reports
from teg.domain.ota import store
from teg.domain.server import own_credentials, remembered_version, wire
from teg.domain.supervision import image_ids
from teg.domain.supervision import supervisor as supervisor_module
from teg.domain.supervision import version as controller_version
from teg.domain.supervision.container_profile import ControllerProfile, Device, Mount
from teg.domain.supervision.runtime import CONTAINER_NAME, IMAGE_PREFIX

DATA, LOGS = Path("/srv/data"), Path("/srv/logs")


def test_the_fingerprint_of_a_container_that_runs_in_the_field() -> None:
    """Another one would restart every controller at the upgrade.

    Changed once, from "3dc0ba35133c4725" and "f843717f7e4a3009": every container is made anew with limits of processor
    time and writes and an init process, and the text that is hashed no longer depends on names in our code's `repr`.
    """
    profile = ControllerProfile(data_path=DATA, logs_path=LOGS)
    assert profile.canonical() == "generation=2\ndata_path=/srv/data\nlogs_path=/srv/logs"
    assert profile.fingerprint() == "92f7295a0343776a"
    loosened = ControllerProfile(
        data_path=DATA,
        logs_path=LOGS,
        memory_bytes=1 << 28,
        pids=64,
        privileged=True,
        network="host",
        devices=(Device("/dev/i2c-1", "/dev/i2c-1", "rwm"),),
        mounts=(Mount("/srv/x", "/x", True),),
        environment=("A=1",),
    )
    assert loosened.canonical().splitlines() == [
        "generation=2",
        "data_path=/srv/data",
        "devices=/dev/i2c-1:/dev/i2c-1:rwm",
        "environment=A=1",
        "logs_path=/srv/logs",
        "memory_bytes=268435456",
        "mounts=/srv/x:/x:ro",
        "network=host",
        "pids=64",
        "privileged=True",
    ]


def test_the_fingerprint_of_a_controller_as_a_process(tmp_path: Path) -> None:
    runtime = ProcessRuntime("python3 c.py", tmp_path, data_path=DATA, logs_path=LOGS, environment=("A=1",))
    assert runtime.profile() == "41c54ab180c0e2cd"


def test_names_in_the_engine() -> None:
    assert CONTAINER_NAME == "teg_controller"
    assert IMAGE_PREFIX == "teg-controller-"
    labels = (parsing.LABEL_MANAGED, parsing.LABEL_VERSION, parsing.LABEL_PROFILE)
    assert labels == ("teg.managed", "teg.version", "teg.profile")


def test_task_names() -> None:
    """Messages of the last release may wait in the queue."""
    assert sorted(gateway.huey._registry._registry) == [
        "tasks.attributes.compare_attributes",
        "tasks.attributes.handle_attribute_push",
        "tasks.attributes.publish_attributes",
        "tasks.attributes.read_limits",
        "tasks.attributes.read_software",
        "tasks.attributes.synchronise",
        "tasks.files.check_files",
        "tasks.files.reconcile_files",
        "tasks.files.restart_controller_for_files",
        "tasks.ota.advance_update",
        "tasks.periodic.check_storage",
        "tasks.periodic.look_at_budgets",
        "tasks.periodic.read_wanted_state",
        "tasks.periodic.report_troubles",
        "tasks.periodic.salvage_storage",
        "tasks.periodic.send_auxiliary_telemetry",
        "tasks.periodic.store_log_lines",
        "tasks.periodic.sweep",
        "tasks.periodic.take_over_reference",
        "tasks.periodic.tend_storage",
        "tasks.periodic.tidy_archive",
        "tasks.rpc.handle_rpc",
        "tasks.rpc.refuse_rpc",
        "tasks.rpc.run_rpc",
        "tasks.rpc.tend_rpc",
        "tasks.supervision.supervise_controller",
        "tasks.telemetry.archive_records",
        "tasks.telemetry.prove_stored",
        "tasks.telemetry.publish_records",
    ]


def test_state_keys() -> None:
    assert (controller_version.VERSION_KEY, controller_version.TRIAL_KEY) == ("controller.version", "controller.trial")
    assert supervisor_module.HISTORY_KEY == "controller.history"
    assert image_ids.IDS_KEY == "controller.images"
    assert supervisor_module.RIGHTS_KEY == "controller.rights"
    assert remembered_version.VERSION_KEY == "server.mqtt_version"
    assert own_credentials.PROVISIONED_KEY == "server.provisioned"
    assert [
        *("ota.wanted", "ota.job", "ota.settled", "ota.previous", "ota.titles", "ota.contents"),
        *("ota.signed", "ota.told_of_nothing", "ota.told", "ota.tell_again", "ota.steps"),
    ] == [
        store.WANTED_KEY,
        store.JOB_KEY,
        store.SETTLED_KEY,
        store.PREVIOUS_KEY,
        store.TITLES_KEY,
        store.CONTENTS_KEY,
        store.SIGNED_KEY,
        store.UNKNOWN_TOLD_KEY,
        store.TOLD_KEY,
        store.TELL_AGAIN_KEY,
        store.STEPS_KEY,
    ]


def test_attribute_names() -> None:
    assert (definitions.FILES, definitions.CONTENT) == ("FILES", "FILE_CONTENT_")
    assert (reports.READ, reports.ERROR, reports.CONFIRM) == (
        "FILE_READ_",
        "FILE_ERROR_",
        "FILE_CONFIRM_",
    )
    assert (reports.FILES_ERROR, desired.FILE_HASHES) == ("FILES_ERROR", "FILE_HASHES")


def test_topics() -> None:
    assert wire.TELEMETRY == "v1/devices/me/telemetry"
    assert wire.ATTRIBUTES == "v1/devices/me/attributes"
    assert wire.ATTRIBUTE_REQUEST == "v1/devices/me/attributes/request/{id}"
    assert wire.ATTRIBUTE_RESPONSE == "v1/devices/me/attributes/response/{id}"
    assert wire.RPC_REQUEST == "v1/devices/me/rpc/request/{id}"
    assert wire.RPC_RESPONSE == "v1/devices/me/rpc/response/{id}"
    assert wire.SUBSCRIPTIONS == (
        "v1/devices/me/rpc/request/+",
        "v1/devices/me/attributes",
        "v1/devices/me/attributes/response/+",
    )
    assert wire.SOFTWARE_CHUNK_FILTER == "v2/sw/response/+/chunk/+"
    assert (wire.PROVISION_REQUEST, wire.PROVISION_RESPONSE) == ("/provision/request", "/provision/response")


COLUMNS = {
    "clock_anchor": [
        "id",
        "first_record",
        "first_letter",
        "boot",
        "boottime_ms",
        "wall_ms",
        "since_ms",
        "synchronised",
    ],
    "moved": ["record_id", "shift_ms"],
    "sent_before": ["first_id", "last_id"],
    "client_attribute": ["key", "value", "change", "published"],
    "counter": ["name", "value"],
    "dead_letter": ["id", "source_row", "type", "message", "reason", "set_aside_ms"],
    "inbox_batch": ["last_row", "first_row", "first_record", "first_dead_letter"],
    "outbox": ["lane", "record_id"],
    "record": ["id", "source_row", "ts", "points", "message", "payload", "kind"],
    "rpc_call": [
        "id",
        "request_id",
        "method",
        "digest",
        "params",
        "state",
        "answer",
        "received_ms",
        "duration_ms",
        "at_boot_id",
        "at_uptime_s",
    ],
    "state": ["key", "value"],
}


def test_the_tables_of_the_first_version_are_still_there(tmp_path: Path) -> None:
    """A later version may add tables and columns; these it has to find, or to bring over."""
    database = Database(tmp_path / "gateway.db")
    database.open(records.SCHEMA, state.SCHEMA, rpc_journal.SCHEMA, clock_anchors.SCHEMA)
    database.close()
    connection = sqlite3.connect(tmp_path / "gateway.db")
    try:
        for table, columns in COLUMNS.items():
            found = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
            assert found[: len(columns)] == columns, table
        assert connection.execute("PRAGMA application_id").fetchone() == (1413826391,)
    finally:
        connection.close()
