"""The job files of docs/budgets.md are job files, and its words are the program's."""

from __future__ import annotations

import re
from pathlib import Path

from runner.jobs.jobfile import read_job_file
from runner.jobs.spec import Budget
from runner.messages.most_input import PICTURE_TOKENS
from runner.messages.prices import is_priced

PAGE = Path(__file__).parents[2] / "docs" / "budgets.md"


def test_the_example_is_a_job_file_with_budgets(tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    whole, prices = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    path = tmp_path / "jobs.yaml"
    path.write_text(whole, encoding="utf-8")
    job_file = read_job_file(path, is_priced=is_priced)
    assert job_file.batch.limits.max_cost_nano_usd == 25 * 10**9
    assert job_file.batch.limits.budget is Budget.WORST
    (job,) = job_file.jobs()
    assert job.continuation.max_cost_nano_usd == 5 * 10**8
    path.write_text(whole.replace("claude-haiku-4-5", "my-model") + prices, encoding="utf-8")
    assert read_job_file(path, is_priced=is_priced).job_count == 1


def test_the_figures_are_the_program_s():
    assert f"A picture counts as {PICTURE_TOKENS:,} tokens" in PAGE.read_text(encoding="utf-8")
