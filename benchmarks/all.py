"""All benchmarks with goals, one after the other, and one table of what they found.

Run: python benchmarks/all.py [--full] [--only NAMES] [--json FILE] [--plots FOLDER]

The short form of each takes some 15 minutes in all; `--full`, as in docs/performance.md, over an hour.
Each benchmark's own output is shown as it comes; the table at the end has a line for each goal. The
exit status is 1 where a benchmark failed, not where a goal was missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import Figure, Table, machine

HERE = Path(__file__).parent


# With goals; what else lies here is told in docs/performance.md.
BENCHMARKS = (
    "wire", "long_document", "saves", "million", "recovery", "postgres", "cli_start", "peers",
)  # fmt: skip


def takes(name: str, option: str) -> bool:
    """Whether a benchmark knows an option."""
    help_text = subprocess.check_output([sys.executable, HERE / f"{name}.py", "--help"], text=True)
    return option in help_text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="at full size")
    parser.add_argument("--only", default=",".join(BENCHMARKS), metavar="NAMES")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, by benchmark")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw each one's curves there")
    options = parser.parse_args()
    goals = Table("All goals", ("benchmark", "figure", "value", "goal", "met"))
    found, failed = [], []
    for name in options.only.split(","):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            told = Path(folder) / "figures.json"
            command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(told)]
            if not options.full and takes(name, "--quick"):
                command.append("--quick")
            if options.plots and takes(name, "--plot"):
                command += ["--plot", str(options.plots / f"{name}.svg")]
            print(f"== {name}", flush=True)
            ended = subprocess.run(command, check=False).returncode
            print(f"== {name}: {time.monotonic() - began:.0f} s\n", flush=True)
            if ended or not told.exists():
                failed.append(name)
                continue
            found.append(json.loads(told.read_text()))
        add(goals, found[-1])
    print(f"{machine()}\n\n{goals.markdown()}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if failed:
        sys.exit(f"These failed: {', '.join(failed)}.")


def add(goals: Table, told: dict[str, object]) -> None:
    """A line for each figure that has a goal."""
    figures = told["figures"]
    assert isinstance(figures, list)
    for one in figures:
        met = one.pop("met")
        if one["goal"] is not None:
            goals.add(str(told["benchmark"]), *Figure(**one).cells())
        one["met"] = met


if __name__ == "__main__":
    main()
