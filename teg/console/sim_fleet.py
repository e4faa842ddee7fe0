"""`teg sim fleet`: many gateways against a server, with outages, to see what comes of it (docs/fleet.md)."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import click
import orjson

from teg.adapters.thingsboard_rest import ThingsBoardRest
from teg.domain.errors import Refused, Unavailable
from teg.fleet.crew import MEMBERS_A_PROCESS, Where
from teg.fleet.storm import Figures, Plan, run
from teg.fleet.tenant import Tenant

#: The stand-in's own administrator, as a fresh ThingsBoard with demo data has it.
DEMO_USER, DEMO_PASSWORD = "tenant@thingsboard.org", "tenant"
_RAM = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it


@click.command()
@click.option("--gateways", default=100, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--url", default="", help="the server's web address; without it a stand-in is started here")
@click.option("--mqtt", default="", metavar="HOST:PORT", help="default: the host of --url, port 1883 (8883 with --tls)")
@click.option("--tls", is_flag=True, help="MQTT over TLS")
@click.option("--ca-cert", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="for --tls and https")
@click.option("--user", default=DEMO_USER, show_default=True, help="a tenant administrator")
@click.option("--password", envvar="TEG_SERVER_PASSWORD", help="default: asked for; or in TEG_SERVER_PASSWORD")
@click.option("--outages", default=1, show_default=True, type=click.IntRange(0))
@click.option("--outage-s", default=60.0, show_default=True, help="how long the server is away")
@click.option("--backlog", default=600, show_default=True, help="records that gather meanwhile in each gateway")
@click.option("--every-s", default=10.0, show_default=True, help="seconds between two records of a gateway")
@click.option("--calm-s", default=60.0, show_default=True, help="how long is looked at what a gateway costs at rest")
@click.option("--cut-every", default=0, show_default=True, help="at the end each so-many-th connection is reset")
@click.option("--patience-s", default=600.0, show_default=True, help="what takes longer has failed")
@click.option("--json", "as_json", is_flag=True)
def fleet(
    gateways: int, url: str, mqtt: str, tls: bool, ca_cert: Path | None, user: str, password: str | None,
    outages: int, outage_s: float, backlog: int, every_s: float, calm_s: float, cut_every: int,
    patience_s: float, as_json: bool,
) -> None:  # fmt: skip
    """Simulate a fleet: real session, publisher and archive of the gateway, many to a process.

    Devices are created on the server (teg-fleet-…) and deleted at the end. Exit status 1 when a record is missing.
    """
    plan = Plan(
        gateways=gateways,
        processes=-(-gateways // MEMBERS_A_PROCESS),
        switched_on_over_s=gateways / 50,
        every_s=every_s,
        calm_s=calm_s,
        outages=outages,
        outage_s=outage_s,
        backlog=backlog,
        cut_every=cut_every,
        patience_s=patience_s,
    )
    try:
        with _server(url) as found, _scratch() as directory:
            if url:
                password = password or click.prompt(f"password of {user}", hide_input=True)
            host, port = _place(mqtt, found, tls)
            where = Where(host=host, port=port, use_tls=tls, ca_cert=ca_cert, directory=directory)
            with ThingsBoardRest(found["rest_url"], user, password or DEMO_PASSWORD, ca_cert) as rest:
                figures = run(plan, where, Tenant(rest), lambda line: click.echo(line, err=True))
    except (Refused, Unavailable) as reason:
        raise click.ClickException(str(reason)) from reason
    click.echo(orjson.dumps(figures, option=orjson.OPT_INDENT_2).decode() if as_json else told(figures))
    raise SystemExit(1 if figures.missing else 0)


def told(figures: Figures) -> str:
    lines = [f"{figures.gateways} gateways, {len(figures.outages)} outages"]
    for outage in figures.outages:
        share = 100 * outage.busiest_second / figures.gateways
        lines += [
            f"  most connects in a second   {outage.busiest_second} ({share:.1f} % of the fleet)",
            f"  all connected again after   {outage.all_back_s:.1f} s",
            f"  all backlogs sent after     {outage.all_drained_s:.1f} s",
            f"  records a second            {outage.records_per_s:.0f}",
        ]
    again = figures.sent - figures.recorded
    return "\n".join(
        [
            *lines,
            f"records                       {figures.recorded}",
            f"missing on the server         {figures.missing}",
            f"sent again (stored once)      {again} ({100 * again / max(1, figures.recorded):.1f} %)",
            "a gateway and day, at rest:",
            f"  messages                    {figures.messages_a_day:,.0f}",
            f"  bytes out / in              {figures.bytes_up_a_day:,.0f} / {figures.bytes_down_a_day:,.0f}",
            f"  CPU                         {figures.cpu_percent:.3f} % of a core",
        ]
    )


def _place(mqtt: str, found: dict[str, str], tls: bool) -> tuple[str, int]:
    """
    Raises:
        Refused: not host:port.
    """
    usual = found.get("mqtt") or f"{urlsplit(found['rest_url']).hostname}:{8883 if tls else 1883}"
    host, _, port = (mqtt or usual).rpartition(":")
    if not host or not port.isdecimal():
        raise Refused(f"--mqtt {mqtt!r} is not host:port")
    return host.strip("[]"), int(port)


@contextmanager
def _server(url: str) -> Iterator[dict[str, str]]:
    """The server named, or a stand-in that ends with this block."""
    if url:
        yield {"rest_url": url}
        return
    command = [sys.executable, "-m", "teg.simulator.thingsboard", "--port", "0", "--rest-port", "0", "--interval", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as standin:
        assert standin.stdout is not None
        try:
            line = standin.stdout.readline()
            if not line:
                raise Unavailable("the stand-in does not start (its packages: pip install 'teg-gateway[demo]')")
            place = orjson.loads(line)["listening"]
            yield {"rest_url": place["rest_url"], "mqtt": f"{place['host']}:{place['port']}"}
        finally:
            standin.terminate()


@contextmanager
def _scratch() -> Iterator[Path]:
    """Thousands of small archives, each flushed for every record: in memory where there is such a place."""
    directory = Path(tempfile.mkdtemp(prefix="teg-fleet-", dir=_RAM if os.access(_RAM, os.W_OK) else None))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
