"""Numbers for people: times, ages, sizes; and text that others wrote, without what a terminal would obey."""

import time

STEPS = ((86_400, "d"), (3600, "h"), (60, "min"))


def age(seconds: float) -> str:
    """'90 s', '5 min', '2 h', '4 d'; never negative: clocks are set."""
    seconds = max(0.0, seconds)
    return next((f"{int(seconds // step)} {unit}" for step, unit in STEPS if seconds >= 2 * step), f"{int(seconds)} s")


def moment(wall_ms: float) -> str:
    """In UTC, as in the log."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(wall_ms / 1000))


def size(number: float) -> str:
    """'12 MB', '3.4 GB'."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while number >= 1000 and len(units) > 1:
        number /= 1000
        units.pop(0)
    return f"{number:.0f} {units[0]}" if number >= 10 or units[0] == "B" else f"{number:.1f} {units[0]}"


def harmless(text: str, length: int = 300) -> str:
    """On one line, control characters replaced and not obeyed: controllers and servers write what they like."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"
