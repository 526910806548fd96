"""From the socket to the saved text: CPU an event, lag, memory and requests, by open streams.

Run: python benchmarks/wire.py [--only sdk|floor|streams|memory|requests] [--quick] [--profile FOLDER]

A fast fake API runs on one core, and one client after the other on the other: the runner's own
worker, which saves with `synchronous=FULL`; the SDK's `create(stream=True)` loop; and a floor of
aiohttp and orjson. Neither of the last two saves anything. All over TLS, with a certificate made at
the start. Where the system allows it both run before all other processes: a reader that has to wait
for its turn finds many events in one packet, and seems cheaper than it is.

Wants the extra `bench`. `--plot docs/wire.svg` draws `docs/wire-streams.svg` and so on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from report import Report, arguments, plot, short

HERE = Path(__file__).parent
RATE = 40  # events a second of each stream
FEW, SMALL, LARGE = 20, 100, 500  # streams: of a burst, beside the SDK's loop, beside the floor
PARTS = ("sdk", "floor", "streams", "memory", "requests")


class Bench:
    """Starts clients against one server, and keeps what they found."""

    def __init__(self, port: int, folder: Path, options: argparse.Namespace) -> None:
        self._port = port
        self._folder = folder
        self._profile: Path | None = options.profile
        self._runs = 0
        self.seconds = 2.5 if options.quick else 4.0
        self.rounds = 1 if options.quick else 2
        self.report = Report("wire")

    def run(self, way: str, order: str, streams: int, **options: Any) -> dict[str, Any]:
        """What one client found; `each_us` is the CPU time of an event, or of a request."""
        self._runs += 1
        database = self._folder / f"{self._runs}.db"
        asked = {
            "url": f"https://localhost:{self._port}",
            "order": order,
            "streams": streams,
            "seconds": self.seconds,
            "database": str(database),
            **options,
        }
        if way == "runner":
            self._start({**asked, "way": "submit"})
        if self._profile is not None:
            self._profile.mkdir(parents=True, exist_ok=True)
            asked["profile"] = str(self._profile / f"{self._runs}-{way}-{streams}.txt")
        found = self._start({**asked, "way": way})
        database.unlink(missing_ok=True)
        for part in ("wall_s", "cpu_s"):
            found.setdefault(part, 0.0)
        assert not asked.get("events") or found["events"] == asked["events"]
        found["each_us"] = 1e6 * found["cpu_s"] / max(1, found.get("requests") or found["events"])
        found["core"] = found["cpu_s"] / max(1e-9, found["wall_s"])
        found["a_second"] = found.get("events", 0) / max(1e-9, found["wall_s"])
        print(way, order, streams, options, found, file=sys.stderr)
        return found

    def _start(self, options: dict[str, Any]) -> dict[str, Any]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(HERE.parent),
            "SSL_CERT_FILE": str(self._folder / "certificate.pem"),
        }
        client = subprocess.run(
            [sys.executable, str(HERE / "wire_client.py"), json.dumps(options)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=150,
            check=False,
        )
        if client.returncode:
            sys.exit(client.stderr)
        found: dict[str, Any] = json.loads(client.stdout)
        return found


class Cases:
    """What several ways came to in several cases, side by side."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._found: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def run(self, name: str, case: str, way: str, order: str, streams: int, **more: Any) -> None:
        run = self._bench.run(way, order, streams, **more)
        self._found.setdefault((case, name), []).append(run)

    def each_us(self, name: str, case: str) -> float:
        return statistics.median(run["each_us"] for run in self._found[case, name])

    def runs(self, name: str, case: str) -> list[dict[str, Any]]:
        return self._found[case, name]

    def table(self, title: str) -> None:
        table = self._bench.report.table(
            title, "what", "way", "CPU, µs an event", "events a second", "of a core", "lag, p99"
        )
        middle = statistics.median_low
        for (case, name), runs in self._found.items():
            lags = [run["lag_ms"]["p99"] for run in runs if run.get("lag_ms")]
            table.add(
                case,
                name,
                short(self.each_us(name, case)),
                f"{middle(run['a_second'] for run in runs):,.0f}",
                f"{100 * middle(run['core'] for run in runs):.0f} %",
                f"{middle(lags):.0f} ms" if lags else "",
            )


def beside_sdk(bench: Bench, *, quick: bool) -> None:
    """CPU an event beside the SDK's own loop."""
    burst, trickle = (
        f"burst, {FEW} streams, 32 events a packet",
        f"trickle, {SMALL} streams × {RATE} a second",
    )
    events = 32 * (150 if quick else 450)  # a stream
    order = f"burst events={events} packet=32"
    cases = Cases(bench)
    for _ in range(bench.rounds):
        for name, way in (("the SDK's loop", "sdk"), ("runner", "runner")):
            cases.run(name, burst, way, order, FEW, events=FEW * events)
            cases.run(name, trickle, way, f"trickle rate={RATE}", SMALL)
    cases.table("Beside the SDK's loop, over TLS")
    for case in (burst, trickle):
        ratio = cases.each_us("runner", case) / cases.each_us("the SDK's loop", case)
        bench.report.figure(f"{case}: runner against the SDK's loop", ratio, "×", goal=0.5)


def beside_floor(bench: Bench, *, quick: bool) -> None:
    """CPU an event beside the floor, and lag; and what saving costs."""
    case, order = f"trickle, {LARGE} streams × {RATE} a second", f"trickle rate={RATE}"
    cases = Cases(bench)
    for _ in range(bench.rounds):
        cases.run("aiohttp and orjson: the floor", case, "floor", order, LARGE)
        cases.run("runner", case, "runner", order, LARGE)
    cases.table("Beside the floor, over TLS")
    figure, each, runs = bench.report.figure, cases.each_us, cases.runs("runner", case)
    ratio = each("runner", case) / each("aiohttp and orjson: the floor", case)
    figure(f"{case}: runner against the floor", ratio, "×", goal=1.25)
    figure("of a core", max(run["core"] for run in runs), "", goal=0.75)
    kept = min(run["a_second"] for run in runs) / (LARGE * RATE)
    figure("of its events, read in time", kept, "", goal=0.99, more_is_better=True)
    figure(
        "lag of a saved text, p99", max(run["lag_ms"]["p99"] for run in runs) / 1e3, "s", goal=0.5
    )
    pairs = bench.run("runner", order, LARGE, pairs=6 if quick else 16)
    figure("CPU with saves against without", pairs["ratio"], "×", goal=1.1)


def by_streams(bench: Bench, *, quick: bool) -> list[tuple[float, float]]:
    """CPU an event by open streams."""
    table = bench.report.table(
        f"The runner by open TLS streams, {RATE} events a second each",
        *("open streams", "CPU, µs an event", "of a core"),
    )
    curve = []
    for count in (10, 100) if quick else (5, 20, 50, 100, 200, 400, 800):
        run = bench.run("runner", f"trickle rate={RATE}", count)
        table.add(f"{count:,}", short(run["each_us"]), f"{100 * run['core']:.0f} %")
        curve.append((float(count), run["each_us"]))
    return curve


def memory(bench: Bench, *, quick: bool) -> list[tuple[float, float]]:
    """Peak memory by open streams that trickle, all of the process."""
    table = bench.report.table("Memory, all of the process", "open TLS streams", "at most")
    curve = []
    for count in (10, 1000) if quick else (10, 250, 500, 1000):
        peak = bench.run("runner", "trickle rate=10", count)["peak_mb"]
        table.add(f"{count:,}", f"{peak:.0f} MB")
        curve.append((float(count), peak))
    bench.report.figure("memory with 1,000 open TLS streams", curve[-1][1], "MB", goal=200)
    each = 1000 * (curve[-1][1] - curve[0][1]) / (curve[-1][0] - curve[0][0])
    bench.report.figure("memory of each open stream", each, "kB")
    return curve


def requests(bench: Bench, *, quick: bool) -> list[tuple[float, float]]:
    """CPU of a whole short job, from its claim to its settlement, while streams are open."""
    table = bench.report.table(
        "A short job while streams are open",
        "open TLS streams",
        "CPU of claim, call and settlement",
    )
    found: dict[int, list[float]] = {}
    for _ in range(bench.rounds):
        for count in (10, 1000) if quick else (10, 100, 300, 1000):
            run = bench.run("runner", "silent", count, requests=400, seconds=0.5)
            found.setdefault(count, []).append(run["each_us"] / 1000)
    curve = [(float(count), statistics.median(each)) for count, each in found.items()]
    for count, each_ms in curve:
        table.add(f"{count:,.0f}", f"{each_ms:.2f} ms")
    ratio = curve[-1][1] / curve[0][1]
    bench.report.figure("CPU a request, 1,000 open streams against 10", ratio, "×", goal=1.3)
    return curve


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """The fake API with a certificate of its own; gives its port."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = (
        "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 "
        f"-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text(certificate.read_text() + key.read_text())
    process = subprocess.Popen(
        [sys.executable, str(HERE / "wire_server.py"), "1", str(both)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = arguments(__doc__, quick=True, curve=True)
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; may be repeated")
    parser.add_argument(
        "--profile", type=Path, metavar="FOLDER", help="write where the time goes, by functions"
    )
    options = parser.parse_args()
    parts = options.only or PARTS
    picture: Path | None = options.plot
    options.plot = None  # one picture for each curve, in place of one for all

    def draw(part: str, x: str, y: str, *curves: tuple[str, Any]) -> None:
        for name, points in curves:
            bench.report.curve(name, *zip(*points, strict=True))
        if picture is not None:
            file = picture.with_stem(f"{picture.stem}-{part}")
            plot(file, [(name, *zip(*points, strict=True)) for name, points in curves], x=x, y=y)

    with tempfile.TemporaryDirectory(prefix="wire-") as folder, server(Path(folder)) as port:
        bench = Bench(port, Path(folder), options)
        if "sdk" in parts:
            beside_sdk(bench, quick=options.quick)
        if "floor" in parts:
            beside_floor(bench, quick=options.quick)
        if "streams" in parts:
            points = by_streams(bench, quick=options.quick)
            x = f"open TLS streams, {RATE} events a second each"
            draw("streams", x, "CPU, µs an event", ("CPU an event", points))
        if "memory" in parts:
            points = memory(bench, quick=options.quick)
            draw("memory", "open TLS streams", "peak memory, MB", ("memory", points))
        if "requests" in parts:
            points = requests(bench, quick=options.quick)
            draw("requests", "open TLS streams", "CPU, ms a short job", ("CPU a short job", points))
    bench.report.finish(options)


if __name__ == "__main__":
    main()
