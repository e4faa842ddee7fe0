"""The machine: clock, disk, card, power, memory, and the versions of what the gateway stands on."""

import os
import platform
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from teg.adapters.host import condition
from teg.console.checks.finding import Finding, Site, aged, fine, problem, skipped, warning
from teg.console.health import is_full
from teg.console.wording import moment, size
from teg.domain.errors import Unavailable

#: A slow card takes this long for a write; the controller's own writes wait behind it.
SLOW_WRITE_MS = 500
WORN_PERCENT = 80
FEW_INODES = 1000
LITTLE_MEMORY_BYTES = 50_000_000


def check_clock(_: Site | None) -> Iterator[Finding]:
    """Nothing of this program can be younger than now."""
    now_s, program_s = time.time(), Path(__file__).stat().st_mtime
    remedy = "set the clock: timedatectl set-ntp true, or a battery-backed clock (RTC)"
    if now_s < program_s - 86_400:
        yield problem("clock", f"{moment(now_s * 1000)} is before this program was installed", remedy)
    else:
        yield fine("clock", moment(now_s * 1000))


def check_time_source(_: Site | None) -> Iterator[Finding]:
    synchronised = condition.clock_is_synchronised()
    if synchronised is None:
        yield skipped("time source", "the kernel does not say")
    elif synchronised:
        yield fine("time source", "the clock is synchronised")
    else:
        remedy = "timedatectl set-ntp true, and let NTP (UDP 123) through the firewall"
        yield warning("time source", "the clock is not synchronised", remedy)


def check_disk(site: Site) -> Iterator[Finding]:
    usage = shutil.disk_usage(_existing(site.settings.data_path))
    text = f"{size(usage.free)} of {size(usage.total)} free"
    if is_full(usage.total, usage.free):
        yield problem("disk", f"the disk is full: {text}", "make room, or lower TEG_ARCHIVE_MAX_BYTES")
    else:
        yield fine("disk", text)


def check_inodes(site: Site) -> Iterator[Finding]:
    found = os.statvfs(_existing(site.settings.data_path))
    if found.f_files and found.f_favail < FEW_INODES:
        text = f"the disk has room for {found.f_favail} more files only"
        yield problem("files on disk", text, "remove what made so many (docker system df)")
    else:
        yield fine("files on disk", f"room for {found.f_favail or 'any number of'} more")


def check_write_speed(site: Site) -> Iterator[Finding]:
    directory = _existing(site.settings.data_path)
    try:
        took_ms = condition.write_ms(directory)
    except Unavailable as reason:
        yield problem("write speed", f"{directory} cannot be written: {reason}", "check the disk, its mount, and sudo")
        return
    if took_ms > SLOW_WRITE_MS:
        yield warning("write speed", f"a small write takes {took_ms:.0f} ms", "replace the card; see dmesg for errors")
    else:
        yield fine("write speed", f"a small write takes {took_ms:.0f} ms")


def check_wear(_: Site | None) -> Iterator[Finding]:
    percent = condition.card_wear_percent()
    if percent is None:
        yield skipped("card wear", "this disk does not tell")
    elif percent >= WORN_PERCENT:
        yield warning("card wear", f"{percent} % of its life is used", "plan to replace it (operations: card swap)")
    else:
        yield fine("card wear", f"up to {percent} % of its life is used")


def check_power(_: Site | None) -> Iterator[Finding]:
    found = condition.undervoltage()
    remedy = "use the power supply that belongs to the board, and a short cable"
    if found is None:
        yield skipped("power", "this machine does not tell")
    elif found[0]:
        yield problem("power", "undervoltage now: writes to the card may be damaged", remedy)
    elif found[1]:
        yield warning("power", "there was undervoltage since the machine started", remedy)
    else:
        yield fine("power", "no undervoltage since the machine started")


def check_memory(_: Site | None) -> Iterator[Finding]:
    try:
        total, available = condition.memory_bytes()
    except Unavailable as reason:
        yield skipped("memory", str(reason))
        return
    text = f"{size(available)} of {size(total)} available"
    if available < LITTLE_MEMORY_BYTES:
        yield warning("memory", text, "lower TEG_CONTROLLER_MEMORY_BYTES, or see what uses it (top)")
    else:
        yield fine("memory", text)


def check_python(_: Site | None) -> Iterator[Finding]:
    yield fine("python", platform.python_version())


def check_sqlite(_: Site | None) -> Iterator[Finding]:
    yield aged("sqlite", "sqlite", sqlite3.sqlite_version, "{}")


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())
