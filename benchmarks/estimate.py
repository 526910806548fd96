"""How near estimates come: each example against what the simulator then bills.

    python benchmarks/estimate.py

Three ways: a rehearsal (`--simulate`), prompts counted by the API and lengths by their words (with a
key), and characters alone (without one). The last batch says nothing of lengths and shows what the
stated assumption is worth.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from runner.cli.estimating import ANTHROPIC, estimates_of
from runner.cli.rehearsing import rehearse
from runner.estimating.amounts import Amounts, amounts_of
from runner.jobs.jobfile import JobFile, read_job_file
from runner.messages.client import MessagesClient
from runner.messages.prices import price_of
from runner.simulator import Simulator, SimulatorOptions

ROOT = Path(__file__).parents[1]
NO_LENGTHS = 300


def no_lengths(folder: Path) -> Path:
    path = folder / "no-lengths.jsonl"
    with path.open("w") as file:
        for n in range(NO_LENGTHS):
            message = {"role": "user", "content": f"Tell me what is worth knowing of subject {n}."}
            params = {"model": "claude-haiku-5-5", "max_tokens": 2000, "messages": [message]}
            file.write(json.dumps({"custom_id": f"subject-{n}", "params": params}) + "\n")
    return path


async def truth(job_file: JobFile) -> Amounts:
    at = datetime.now(UTC)
    async with Simulator(SimulatorOptions(tokens_per_event=64)) as server:
        client = MessagesClient(api_key="k", base_url=server.base_url, one_block=False)
        done = await rehearse(client, job_file.batch, list(job_file.jobs()))
        await client.aclose()
    total = Amounts()
    for job in done:
        price = price_of(job.spec.model, base_url=ANTHROPIC, at=at, own={})
        for usage in job.calls:
            total += amounts_of(usage, price)
    return total


async def told(job_file: JobFile, database: str, *, simulate: bool) -> Amounts:
    (found,) = await estimates_of([job_file], database, simulate=simulate)
    return found.total.expected


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = str(folder / "none.db")
        files = [
            ROOT / "jobs.example.yaml",
            ROOT / "requests.example.jsonl",
            no_lengths(folder),
        ]
        print(f"{'batch':<18} {'by':<12} {'calls':>16} {'input':>20} {'output':>20} {'cost':>20}")
        for path in files:
            job_file = read_job_file(path)
            true = await truth(job_file)
            show(job_file.batch.name, "the bill", true, true)
            show("", "rehearsal", await told(job_file, database, simulate=True), true)
            async with Simulator(SimulatorOptions()) as server:
                os.environ["ANTHROPIC_BASE_URL"] = server.base_url
                os.environ["ANTHROPIC_API_KEY"] = "k"
                show("", "count, words", await told(job_file, database, simulate=False), true)
            for key in ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"):
                del os.environ[key]
            show("", "characters", await told(job_file, database, simulate=False), true)


def show(batch: str, how: str, told: Amounts, true: Amounts) -> None:
    cells = (
        (told.calls, true.calls, "{:,.0f}"),
        (told.input_tokens, true.input_tokens, "{:,.0f}"),
        (told.output_tokens, true.output_tokens, "{:,.0f}"),
        ((told.cost_nano_usd or 0) / 1e9, (true.cost_nano_usd or 0) / 1e9, "${:.4f}"),
    )
    words = [
        form.format(one) + (f" {one / other - 1:+7.1%}" if told is not true else " " * 8)
        for one, other, form in cells
    ]
    print(f"{batch:<18} {how:<12} {words[0]:>16} {words[1]:>20} {words[2]:>20} {words[3]:>20}")


if __name__ == "__main__":
    asyncio.run(main())
