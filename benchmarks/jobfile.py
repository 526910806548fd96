"""How fast a job file is checked, and how much memory it takes.

Run: python benchmarks/jobfile.py [ROWS]

Prints, for a JSONL file of Message Batches requests and for a YAML file with `foreach` over a CSV
file, the CPU time a job of checking (`read_job_file`) and of streaming (`jobs()`), beside what
`json.loads` alone takes for the same lines, and how far the peak memory grew.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from runner.jobs.jobfile import read_job_file

PROMPT = "Write a chapter of the handbook on topic number {0}, for readers who are new to {0}. " * 2


def write_requests(path: Path, rows: int) -> None:
    with path.open("w") as out:
        for number in range(rows):
            message = {"role": "user", "content": PROMPT.format(number)}
            params = {"model": "claude-haiku-4-5", "max_tokens": 4096, "messages": [message]}
            out.write(json.dumps({"custom_id": f"job-{number}", "params": params}) + "\n")


def write_rows(folder: Path, rows: int) -> Path:
    with (folder / "rows.csv").open("w") as out:
        out.write("slug,topic\n")
        out.writelines(f"s{number},topic number {number}\n" for number in range(rows))
    path = folder / "jobs.yaml"
    path.write_text(
        "version: 1\njobs:\n- id: 'j-{{ slug }}'\n  model: claude-haiku-4-5\n"
        "  foreach: rows.csv\n  prompt: 'Write on {{ topic }}.'\n"
    )
    return path


def measure(name: str, rows: int, work: Callable[[], object]) -> None:
    before, began = peak_mb(), time.process_time()
    work()
    spent = time.process_time() - began
    print(
        f"{name:<28} {spent / rows * 1e6:6.1f} µs a job  {rows / spent:9,.0f} jobs/s"
        f"  peak + {peak_mb() - before:5.1f} MB"
    )


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        requests = Path(folder) / "requests.jsonl"
        write_requests(requests, rows)
        print(f"{rows:,} jobs, {requests.stat().st_size / 1e6:,.0f} MB of JSONL")
        with requests.open() as source:
            measure(
                "json.loads alone", rows, lambda: [None for line in source if not json.loads(line)]
            )
        measure("check JSONL", rows, lambda: read_job_file(requests))
        file = read_job_file(requests)
        measure("stream JSONL", rows, lambda: sum(1 for _ in file.jobs()))
        some = max(1, rows // 10)
        yaml = write_rows(Path(folder), some)
        measure(f"check YAML, {some:,} rows", some, lambda: read_job_file(yaml))


if __name__ == "__main__":
    main()
