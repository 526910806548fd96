"""The ledger: how right its estimates of calls that died are, and how fast it sums many calls.

Run: python benchmarks/ledger.py [--kills 20] [--jobs 60] [--speed 100] [--model MODEL]
     python benchmarks/ledger.py --sum 1000000

Short-lived processes work on one database, one after another; each is killed by SIGKILL at a
random moment, with all its streams open. The last one finishes the rest. What the calls that died
cost by the ledger, in sum, is held against the simulator's bills for the same requests.

With `--sum N`, N calls of N / 4 jobs are put into a database instead, and the CPU seconds are told
that `runner cost` takes for each of its views, start-up included, beside those of `--help` alone.

Prints one JSON object; the exit status is 1 if the two are more than 5 % apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from runner.store import migrate

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.crash.died import die

DAY_MS = 86_400_000


def sum_up(folder: Path, calls: int) -> dict[str, float]:
    """CPU seconds of `runner cost` over so many calls."""
    database = folder / "runner.db"
    migrate.upgrade(database)
    jobs = calls // 4
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO batch (key, name, limits, created_ms) VALUES (1, 'b', '{}', 0)"
        )
        connection.executemany(
            "INSERT INTO job (key, batch_key, id, hash, model, state, priority, created_ms,"
            " updated_ms) VALUES (?, 1, ?, x'00', 'm', 'available', 0, 0, 0)",
            ((key, f"job-{key}") for key in range(1, jobs + 1)),
        )
        connection.executemany(
            "INSERT INTO call (job_key, number, claim, resume_at, max_tokens, model, started_ms,"
            " ended_ms, stop_reason, request_id, input_tokens, output_tokens, prompt_tokens,"
            " dropped_output_tokens, input_price, output_price, cache_write_5m_price,"
            " cache_write_1h_price, cache_read_price, cost_nano_usd) VALUES (?, ?, 1, ?, 4096, ?,"
            " ?, ?, 'max_tokens', ?, ?, 4096, 500, 1, 1000000000, 5000000000, 1250000000,"
            " 2000000000, 100000000, 21000000)",
            (
                (
                    *(1 + n // 4, 1 + n % 4, n % 4 * 16_000, f"claude-{n % 3}"),
                    *(DAY_MS * 20_000 + n * 300, DAY_MS * 20_000 + n * 300 + 9_000),
                    *(f"req_{n:024}", 500 + n % 4 * 4_096),
                )
                for n in range(calls)
            ),
        )
    found = {"calls": float(calls)}
    for name, options in (
        ("--help", ["--help"]),
        *((f"--by {by}", ["--by", by]) for by in ("batch", "model", "day", "job")),
        ("status", []),
    ):
        command = "status" if name == "status" else "cost"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with (folder / "told").open("wb") as told:
            subprocess.run(
                [sys.executable, "-m", "runner", command, *options],
                env={**os.environ, "RUNNER_DB": str(database)},
                stdout=told,
                check=True,
            )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found[name] = round(cpu_s, 2)
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--speed", type=float, default=100.0)
    parser.add_argument("--document-tokens", type=int, default=800)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--model", default="claude-haiku-4-5")
    parser.add_argument("--thinks", type=int, default=0)
    parser.add_argument("--sum", type=int, metavar="CALLS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.sum:
            print(json.dumps(sum_up(Path(folder), options.sum), indent=2))
            return 0
        found = asyncio.run(
            die(
                str(Path(folder) / "runner.db"),
                kills=options.kills,
                jobs=options.jobs,
                model=options.model,
                document_tokens=options.document_tokens,
                max_tokens=options.max_tokens,
                tokens_per_second=options.speed,
                thinks=options.thinks,
            )
        )
    apart = found["cost"] / found["cost_billed"] - 1
    print(json.dumps(found | {"apart": f"{apart:+.2%}"}, indent=2))
    return int(abs(apart) > 0.05)


if __name__ == "__main__":
    sys.exit(main())
