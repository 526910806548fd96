"""What the benchmarks share: tables, figures with their goals, plots, and how CPU time is taken.

A benchmark makes one `Report`, adds tables, figures and curves to it, and calls `finish`:

    parser = arguments(__doc__, curve=True)
    options = parser.parse_args()
    report = Report("claims")
    table = report.table("Claiming one job", "jobs waiting", "CPU")
    table.add("1,000", "350 µs")
    report.figure("claim, 1,000,000 jobs against 1,000", 1.1, "×", goal=1.3)
    report.curve("one at a time", [1_000, 1_000_000], [350, 380])
    report.finish(options, x="jobs waiting", y="CPU, µs a claim", log_x=True)

`finish` prints Markdown, writes `--json FILE` (what `benchmarks/all.py` reads), and draws the curves
into `--plot FILE.svg` by matplotlib, of the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# Told apart with poor eyes for colours, and legible on white as on black.
COLOURS = ("#1f8fd0", "#e0730f", "#2ca25f", "#c2519f", "#8c6bd1", "#b8860b", "#d7443e", "#4f9c9c")
INK = "#808080"


def arguments(doc: str, *, quick: bool = False, curve: bool = False) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks share.

    Args:
        doc: the module's docstring: the help text.
        quick: it has a short form.
        curve: it has something to plot.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    if curve:
        parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the curves here")
    if quick:
        parser.add_argument("--quick", action="store_true", help="smaller, in under a minute")
    return parser


@dataclass
class Table:
    """Rows under headings, printed as Markdown."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """One more row; each cell as it is to be read."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells in a table of {len(self.columns)} columns")
        self.rows.append(tuple(str(cell) for cell in cells))

    def markdown(self) -> str:
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"### {self.title}\n\n{body}\n"


@dataclass(frozen=True)
class Figure:
    """One measured number, and what it should be.

    Args:
        value: what was measured.
        unit: `×` for a ratio; `s`, `µs`, `MB`, `/s` and so on.
        goal: what to reach; None where nothing is asked.
        more_is_better: the goal is a least, not a most.
    """

    name: str
    value: float
    unit: str
    goal: float | None = None
    more_is_better: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.more_is_better else self.value <= self.goal

    def cells(self) -> tuple[str, str, str, str]:
        goal = (
            "" if self.goal is None else f"{'≥' if self.more_is_better else '≤'} {self.goal:,.10g}"
        )
        met = {True: "yes", False: "**no**", None: ""}[self.met]
        return self.name, f"{short(self.value)} {self.unit}", goal, met


def short(number: float) -> str:
    """A number with as many digits as are worth reading."""
    size = abs(number)
    return f"{number:,.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.095 else 3}f}"


@dataclass
class Report:
    """All that one benchmark found.

    Args:
        name: the benchmark's file name without `.py`.
    """

    name: str
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    curves: list[tuple[str, list[float], list[float]]] = field(default_factory=list)

    def table(self, title: str, *columns: str) -> Table:
        self.tables.append(Table(title, columns))
        return self.tables[-1]

    def figure(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        goal: float | None = None,
        more_is_better: bool = False,
    ) -> None:
        self.figures.append(Figure(name, value, unit, goal, more_is_better))

    def curve(self, name: str, x: Iterable[float], y: Iterable[float]) -> None:
        self.curves.append((name, list(x), list(y)))

    def markdown(self) -> str:
        tables = list(self.tables)
        if self.figures:
            tables.append(Table("Figures", ("figure", "value", "goal", "met")))
            tables[-1].rows += [figure.cells() for figure in self.figures]
        return "\n".join(table.markdown() for table in tables)

    def as_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.name,
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "figures": [
                {
                    "name": f.name,
                    "value": f.value,
                    "unit": f.unit,
                    "goal": f.goal,
                    "more_is_better": f.more_is_better,
                    "met": f.met,
                }
                for f in self.figures
            ],
            "tables": [
                {"title": t.title, "columns": t.columns, "rows": t.rows} for t in self.tables
            ],
            "curves": [{"name": name, "x": x, "y": y} for name, x, y in self.curves],
        }

    def finish(
        self,
        options: argparse.Namespace,
        *,
        x: str = "",
        y: str = "",
        log_x: bool = False,
        log_y: bool = False,
    ) -> None:
        """Prints all of it, and writes what the options ask for.

        Args:
            options: of the parser that `arguments` made.
            x, y: what stands along the axes of the plot, with units.
            log_x, log_y: the axis grows by factors.
        """
        print(self.markdown())
        if options.json:
            options.json.write_text(json.dumps(self.as_json(), indent=1) + "\n")
        if getattr(options, "plot", None):
            plot(options.plot, self.curves, x=x, y=y, log_x=log_x, log_y=log_y)


def plot(
    path: Path,
    curves: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
) -> None:
    """Draws curves into an SVG that is the same for the same figures, on any background.

    Args:
        curves: name, x values, y values of each.
        x, y: labels of the axes, with units.
        log_x, log_y: the axis grows by factors.
    """
    try:
        import matplotlib
    except ImportError:
        sys.exit("A plot needs matplotlib: pip install -e '.[bench]'")
    matplotlib.use("svg")
    from matplotlib import pyplot, ticker

    style: dict[Any, Any] = {
        "svg.hashsalt": "runner",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
        "font.size": 10,
        **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color"), INK),
        **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), INK),
    }
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
        for number, (name, xs, ys) in enumerate(curves):
            colour = COLOURS[number % len(COLOURS)]
            marker = "o" if len(xs) <= 40 else None
            axes.plot(xs, ys, color=colour, marker=marker, markersize=4, linewidth=1.6, label=name)
        for axis, log in ((axes.xaxis, log_x), (axes.yaxis, log_y)):
            if log:
                (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
            axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
        if not log_y:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(alpha=0.3, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if len(curves) > 1:
            axes.legend(frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(path, format="svg", transparent=True, metadata=nothing)
        pyplot.close(figure)


class Cpu:
    """CPU and wall seconds of this process between `with` and its end.

    `cpu_s` counts user and system time of all threads, `wall_s` the clock on the wall.
    """

    def __enter__(self) -> Self:
        self.wall_s, self.cpu_s = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.wall_s = time.perf_counter() - self.wall_s
        self.cpu_s = time.process_time() - self.cpu_s


def children_cpu_s() -> float:
    """CPU seconds of all children that ended and were waited for; take the difference of two."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_of(pid: int) -> float:
    """CPU seconds of a process that still runs, its children apart."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        # The name in brackets may hold anything, so what follows its last bracket is split.
        user, system = stat.read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    told = subprocess.check_output(["ps", "-o", "time=", "-p", str(pid)], text=True).strip()
    days, _, clock = told.rpartition("-")
    seconds = 0.0
    for part in clock.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds + 86_400 * int(days or 0)


def memory_bytes(pid: int | None = None) -> int:
    """Resident memory of a process, this one by default."""
    told = subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid or os.getpid())], text=True)
    return int(told) * 1024


def written_bytes(pid: int | None = None) -> int:
    """Bytes a process, this one by default, handed to the disk so far; take the difference of two.

    Raises:
        OSError: the system does not tell; Linux does.
    """
    for line in Path(f"/proc/{pid or 'self'}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise OSError("/proc tells no write_bytes")


def pin(cores: Iterable[int], pid: int = 0) -> bool:
    """Keeps a process, this one by default, on these cores, where the system can.

    Cores are counted modulo those there are, so that `pin([0])` for the client and `pin([1])` for
    the server hold on any machine.

    Returns:
        Whether it is pinned.
    """
    if not hasattr(os, "sched_setaffinity"):
        return False
    there = sorted(os.sched_getaffinity(0))
    known = range(os.cpu_count() or 1)
    wanted = {core % len(known) for core in cores}
    try:
        os.sched_setaffinity(pid, wanted)
    except OSError:  # a container may forbid some cores
        os.sched_setaffinity(pid, there)
        return False
    return True


def clean_environment() -> None:
    """Takes settings of whoever calls away, for they would change where requests go."""
    for name in [n for n in os.environ if n.startswith(("ANTHROPIC_", "RUNNER_"))]:
        del os.environ[name]


def machine() -> str:
    """What it ran on, in a few words."""
    cores = os.cpu_count()
    return (
        f"{cores} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )
