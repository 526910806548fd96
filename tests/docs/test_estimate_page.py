"""docs/estimate.md shows what `runner estimate` prints, and names the figures it goes by."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from runner.cli.main import main
from runner.cli.rehearsing import LONGEST_S
from runner.estimating import clock, estimate, evidence, lengths, tokenizer
from runner.jobs.call import CHARACTERS_PER_TOKEN

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "estimate.md").read_text()


def outline(text: str) -> list[str]:
    """Lines with money and white space made alike: whether marks for the prompt cache pay depends
    on the order in which documents end."""
    text = re.sub(r"\$[\d.]+", "$N", text)
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def test_the_example_is_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ROOT.glob("*.example.*"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    command, shown = re.findall(
        r"^```console\n\$ runner (.*?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    )[0]
    result = CliRunner().invoke(main, command.split())
    assert result.exit_code == 0
    assert outline(result.stdout) == outline(shown)


def test_its_figures_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    for figure in (
        f"the prompts of {estimate.COUNTED_JOBS} jobs",
        f"up to {estimate.REHEARSED_JOBS} of the documents",
        f"within {LONGEST_S:.0f} seconds",
        f"{CHARACTERS_PER_TOKEN} characters are taken for a token",
        f"{tokenizer.NEWER_FACTOR - 1:.0%} more tokens".replace("%", " %"),
        f"{tokenizer.CHARACTERS_PER_WORD} characters",
        f"{evidence.ASSUMED_TOKENS:,} tokens assumed",
        f"first and last {lengths.LOOKED_AT:,} characters",
        f"{clock.ASSUMED_TOKENS_PER_SECOND:.0f} tokens a second are assumed",
        f"{clock.FIRST_TOKEN_S} seconds to the first",
    ):
        assert figure in text, figure
