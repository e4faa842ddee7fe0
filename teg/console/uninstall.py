"""`teg uninstall`: takes the service that ./install made off this machine; settings and data stay."""

import shutil
import subprocess
from pathlib import Path

import click

UNIT = Path("/etc/systemd/system/teg.service")
PACKAGED_UNIT = Path("/usr/lib/systemd/system/teg.service")
PROGRAM = Path("/opt/teg")
LEFT = (Path("/etc/polkit-1/rules.d/50-teg.rules"), Path("/usr/local/bin/teg"))
WANTS = Path("/etc/systemd/system/multi-user.target.wants/teg.service")


@click.command()
@click.option("--root", default="/", type=click.Path(path_type=Path), hidden=True, help="Another system's root.")
@click.confirmation_option(prompt="Stop the gateway and remove its program? Settings and data stay.")
def uninstall(root: Path) -> None:
    """Stop the service and remove its program. /etc/teg and /var/lib/teg stay."""

    def here(path: Path) -> Path:
        return root / path.relative_to("/")

    if here(PACKAGED_UNIT).exists():
        raise click.ClickException("it was installed as a package: apt remove teg-gateway")
    if not here(UNIT).exists():
        raise click.ClickException(f"there is no {UNIT}: it was not installed by ./install")
    running = root == Path("/") and Path("/run/systemd/system").is_dir()
    if running:
        subprocess.run(["systemctl", "disable", "--now", "teg"], check=True)
    for path in (UNIT, WANTS, *LEFT):
        here(path).unlink(missing_ok=True)
    shutil.rmtree(here(PROGRAM), ignore_errors=True)
    if running:
        subprocess.run(["systemctl", "daemon-reload"], check=True)
    click.echo("removed; settings are in /etc/teg, data in /var/lib/teg")
