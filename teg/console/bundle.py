"""`teg bundle`: what a supporter needs to see, without what nobody may see."""

import io
import json
import platform
import sqlite3
import tarfile
import time
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from teg.console.check import findings
from teg.console.opening import open_settings
from teg.console.status import as_json_object, look
from teg.domain.redaction import MASK, redacted_text
from teg.settings import Settings

#: Settings whose value is shown. All others say only whether they are set: a new one is a secret until it stands here.
SHOWN = {
    *(
        "tb_host",
        "tb_port",
        "tb_tls",
        "tb_mqtt_version",
        "connection",
        "ca_cert",
        "access_token_path",
        "device_name",
        "data_path",
    ),
    *("controller_data_path", "controller_logs_path", "controller_git_path", "controller_docker_context"),
    *("controller_dockerfile", "default_controller_version", "log_level", "log_format", "rpc_disabled", "file_roots"),
    *("controller_runtime", "docker_host", "controller_privileged", "controller_network", "controller_devices"),
    *("controller_memory_bytes", "controller_pids", "health_limit_s", "start_grace_s", "ota_trial_s"),
    *("ota_require_keys", "ota_require_signature", "archive_max_bytes", "archive_max_days", "console"),
}


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
def bundle(file: Path | None) -> None:
    """Write a support bundle: settings, check, status, versions. No token, no secret, no measurement."""
    settings = open_settings()
    file = file or Path(f"teg-bundle-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
    secrets = _secrets(settings)
    with tarfile.open(file, "w:gz") as archive:
        for name, content in contents(settings).items():
            _add(archive, name, _without(secrets, content))
    click.echo(f"{file}; look into it before you send it: tar -xzOf {file}")


def contents(settings: Settings) -> dict[str, str]:
    check = "\n".join(str(each) for each in sorted(findings(), key=lambda each: each.level.value))
    return {
        "settings.txt": shown_settings(settings),
        "check.txt": check,
        "status.json": json.dumps(as_json_object(look(settings)), indent=1),
        "versions.txt": "\n".join(_versions()),
    }


def shown_settings(settings: Settings) -> str:
    lines = []
    for each in fields(settings):
        value: Any = getattr(settings, each.name)
        shown = redacted_text(str(value)) if each.name in SHOWN else ("set" if value else "not set")
        lines.append(f"{each.name} = {shown}")
    return "\n".join(lines)


def _versions() -> list[str]:
    installed = sorted(f"{found.name} {found.version}" for found in metadata.distributions())
    return [platform.platform(), f"python {platform.python_version()}", f"sqlite {sqlite3.sqlite_version}", *installed]


def _secrets(settings: Settings) -> list[str]:
    """A last net: whatever a reason or a log line quoted, these words do not leave."""
    found = [settings.provision_key, settings.provision_secret, *settings.connection.secrets]
    if settings.access_token_path.exists():
        found.append(settings.access_token_path.read_text(errors="replace").strip())
    return [secret for secret in found if secret]


def _without(secrets: list[str], content: str) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        content = content.replace(secret, MASK)
    return content


def _add(archive: tarfile.TarFile, name: str, content: str) -> None:
    data = content.encode()
    member = tarfile.TarInfo(f"teg-bundle/{name}")
    member.size, member.mtime, member.mode = len(data), int(time.time()), 0o600
    archive.addfile(member, io.BytesIO(data))
