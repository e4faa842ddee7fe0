"""Everything that docs/performance.md promises, measured here: one table, and one picture of it.

python -m bench.table [--runs 5] [--rows 100000] [--svg docs/pictures/performance.svg]

What is told is the median of the runs with the least and the most, and its ratio to what is meant: below 1 is better.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench import archive, cost, drain, latency
from bench.server import stand_in

ARCHIVED_ROWS = 1_000_000
SECONDS = 20


@dataclass(frozen=True, slots=True)
class Figure:
    """`more` is better: a rate or a ratio; else a cost. `load` says that only a quiet machine gives the true value."""

    name: str
    unit: str
    meant: float
    values: list[float]
    more: bool = False
    load: bool = True

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def of_meant(self) -> float:
        """1 is what is meant, less is better."""
        if not self.meant or not self.median:
            return 0.0
        return self.meant / self.median if self.more else self.median / self.meant

    def line(self) -> str:
        spread = f"{min(self.values):.2f}–{max(self.values):.2f}"
        sign = "≥" if self.more else "≤"
        mark = " (time)" if self.load else ""
        seen = f"{self.median:9.2f} {spread:>19} {self.of_meant:6.2f}"
        return f"{self.name:36} {sign} {self.meant:8.2f} {seen}  {self.unit}{mark}"


def drains(runs: int, rows: int) -> Iterator[Figure]:
    found = list(drain.rounds(runs, rows))
    yield Figure(f"drain ÷ ideal loop, {rows:,}", "", 0.8, [one.ratio for one in found], more=True)
    yield Figure(f"CPU a record, {rows:,}", "µs", 6.5, [one.cpu_us for one in found])


def latencies(runs: int, rows: int) -> Iterator[Figure]:
    slow: list[list[float]] = []
    fast: list[list[float]] = []
    behind: list[list[float]] = []
    pings: list[list[float]] = []
    for _ in range(runs):
        slow.append(_steady(1, 12))
        fast.append(_steady(100, 300))
        with tempfile.TemporaryDirectory() as name, stand_in(Path(name), "full") as server:
            taken = latency.while_draining(Path(name), server, rows)
        behind.append(taken.messages_ms)
        pings.append(taken.pings_ms)
    for what, values, p50, p99 in (
        ("insert → arrival, 1/s", slow, 6, 20),
        ("insert → arrival, 100/s", fast, 50, 150),
        ("insert → arrival, while draining", behind, 2000, 5000),
        ("ping while draining", pings, 10, 100),
    ):
        yield Figure(f"{what}, p50", "ms", p50, [statistics.median(one) for one in values])
        yield Figure(f"{what}, p99", "ms", p99, [latency.percentile(one, 0.99) for one in values])


def _steady(per_s: float, messages: int) -> list[float]:
    with tempfile.TemporaryDirectory() as name, stand_in(Path(name), "full") as server:
        return latency.steady(Path(name) / "g", server, per_s, messages).messages_ms


def costs(runs: int) -> Iterator[Figure]:
    found = [_costs() for _ in range(runs)]
    for at, figure in enumerate(found[0]):
        yield replace(figure, values=[one[at].values[0] for one in found])


def _costs() -> list[Figure]:
    with (
        tempfile.TemporaryDirectory() as name,
        stand_in(Path(name)) as server,
        cost.idle_gateway(Path(name) / "g", server) as (gateway, inbox, connected_s),
    ):
        rss_mb = cost.usage(cost.pid_of(gateway)).rss_bytes / 1e6
        rest = cost.at_rest(gateway, SECONDS)
        slow = cost.with_messages(gateway, inbox, 1, 1, SECONDS)
        fast = cost.with_messages(gateway, inbox, 100_000, 10, SECONDS)
    return [
        Figure("start → connected", "s", 0.5, [connected_s]),
        Figure("CPU at rest", "% of a core", 0.08, [rest.cpu_percent]),
        Figure("waits that time out, at rest", "/s", 3.0, [rest.calls.timeouts / rest.seconds], load=False),
        Figure("calls that write a file, at rest", "", 0.0, [float(len(rest.calls.written))], load=False),
        Figure("RSS without the reader, runtime none", "MB", 45.0, [rss_mb], load=False),
        Figure("block layer a message, 1/s", "kB", 8.0, [slow.kb_per_message], load=False),
        Figure("fsyncs a message, 1/s", "", 1.1, [slow.fsyncs_per_message], load=False),
        Figure("block layer a message, 10/s", "kB", 4.1, [fast.kb_per_message], load=False),
        Figure("fsyncs a message, 10/s", "", 0.35, [fast.fsyncs_per_message], load=False),
    ]


def looks(runs: int) -> Iterator[Figure]:
    for what, taken in archive.measured(ARCHIVED_ROWS, runs).items():
        yield Figure(f"{what}, {ARCHIVED_ROWS:,}", "ms", 20, taken)


def picture(figures: list[Figure], path: Path) -> None:
    """Bars from the least to the most of each figure, as parts of what is meant."""
    import matplotlib as mpl  # a large library, for this alone

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "teg"
    from matplotlib import pyplot

    shown = [one for one in reversed(figures) if one.of_meant]
    figure, axes = pyplot.subplots(figsize=(9, 0.32 * len(shown) + 1))
    colours = ["#3b7dd8" if one.of_meant <= 1 else "#d8703b" for one in shown]
    axes.barh([one.name for one in shown], [one.of_meant for one in shown], color=colours)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlabel("seen ÷ meant (costs), meant ÷ seen (ratios): left of the line is reached")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--svg", type=Path, default=Path("docs/pictures/performance.svg"))
    options = parser.parse_args()
    figures: list[Figure] = []
    print(f"{'':36} {'meant':>10} {'median':>9} {'least–most':>19} {'ratio':>6}")
    for part in (
        costs(options.runs),
        looks(options.runs),
        latencies(options.runs, options.rows),
        *(drains(options.runs, rows) for rows in (options.rows // 10, options.rows)),
    ):
        for figure in part:
            figures.append(figure)
            print(figure.line(), flush=True)
    picture(figures, options.svg)


if __name__ == "__main__":
    main()
