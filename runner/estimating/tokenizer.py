"""How many tokens a text comes to, by the model's tokenizer, where nobody counted it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runner.estimating.lengths import Unit
from runner.jobs.call import CHARACTERS_PER_TOKEN
from runner.jobs.model_names import line_and_version, plain_name

# Models from Opus 4.7 on make about 30 % more tokens of the same text.
# Source: Messages API documentation, models overview and migration guide.
NEWER_FACTOR: Final = 1.3
_LAST_BEFORE: Final = (4, 6)

CHARACTERS_PER_WORD: Final = 6  # of English, the white space behind it included

# A page of our own, written as documents are: the API's count of it tells how many tokens this
# model's tokenizer makes of a character of prose, with the headings and lists that come with it.
PAGE: Final = """\
# The Winter Cluster

When the last asters have faded, a colony of bees draws together between the combs. What looks like \
rest is work: some ten thousand workers form a ball around their queen, and those inside shiver \
with their flight muscles until it is 34 °C at the centre, however hard it freezes outside.

## 2. What the keeper does

- Weigh the hive in October; below 18 kg it needs sugar.
- Narrow the entrance (8 mm), so that no mouse gets in.
- Leave it alone: every knock costs warmth, and warmth is honey.

| month | food used | look inside? |
| --- | --- | --- |
| December | 0.9 kg | no |
| March | 2.4 kg | on a mild day |

"They don't sleep," old Mr. Löwenthal used to say; "they're waiting, and they count the days." He \
was right in this at least: soon after the solstice the queen begins to lay again, a few eggs at \
first, and the cluster grows warmer for their sake. By the time the willows flower, one bee in \
three has never seen a summer.
"""


def is_newer(model: str) -> bool:
    """Whether the model has the tokenizer that came with Opus 4.7; Claude models nobody told us of
    are taken for newer ones."""
    name = plain_name(model)
    if not name.startswith("claude-"):
        return False
    known = line_and_version(name)
    return known is None or known[1] > _LAST_BEFORE


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """How many tokens a model's tokenizer makes of texts.

    Args:
        prompt_per_character: of this batch's prompts.
        per_character: of documents.
        counted: prompts that the API counted for this; 0 where it is all by rule of thumb.
    """

    prompt_per_character: float
    per_character: float
    counted: int = 0

    def tokens(self, amount: float, unit: Unit) -> float:
        """Tokens that a document of so many of `unit` comes to."""
        if unit is Unit.TOKENS:
            return amount
        characters = amount * CHARACTERS_PER_WORD if unit is Unit.WORDS else amount
        return characters * self.per_character


def tokenizer(
    model: str,
    *,
    counted: Sequence[tuple[int, int]] = (),
    page_tokens: int | None = None,
    sent: tuple[int, int] = (0, 0),
    written: tuple[int, int] = (0, 0),
) -> Tokenizer:
    """What is known of a model's tokenizer, by what was counted, else by rule of thumb.

    Args:
        counted: characters and tokens of prompts that the API counted.
        page_tokens: what it counted for `PAGE`.
        sent, written: characters and tokens of what earlier calls read and wrote.
    """
    usual = (NEWER_FACTOR if is_newer(model) else 1.0) / CHARACTERS_PER_TOKEN
    characters, tokens = (sum(column) for column in zip((0, 0), *counted, strict=True))
    if not (characters and tokens):
        characters, tokens = sent
    prompt = tokens / characters if characters and tokens else usual
    document = usual if page_tokens is None else page_tokens / len(PAGE)
    if written[0] and written[1]:
        document = written[1] / written[0]
    return Tokenizer(prompt, document, len(counted))
