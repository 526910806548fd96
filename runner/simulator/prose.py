"""Readable prose in numbered sentences: whoever reads it sees at once what is missing or doubled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

_T = TypeVar("_T")

_OPENERS = (
    "",
    "",
    "",
    "",
    "In the morning, ",
    "Towards evening, ",
    "As the notes record, ",
    "By then, ",
    "Without a word, ",
    "For the third time, ",
    "Oddly enough, ",
    "Près du café, ",
    "Even so, ",
    "On the far side of the river, ",
    "When the bells had stopped, ",
    "Before anybody woke, ",
    "After a long pause, ",
    "Half in jest, ",
    "In spite of the rain, ",
    "Später, ",
)
_SUBJECTS = (
    "the lighthouse keeper",
    "a patient heron",
    "the old cartographer",
    "the night train",
    "Zoë Nuñez",
    "the baker of Łódź",
    "a very small elephant",
    "the orchard",
    "the harbour master",
    "Professor Åse Dvořák",
    "the youngest apprentice",
    "李明",
    "the clockmaker's daughter",
    "a fox with one white ear",
    "the village council",
    "さくら",
    "the second expedition",
    "an unsigned letter",
    "the archive",
    "Дарья",
    "the ferry",
    "a flock of starlings",
    "the gardener",
    "Σοφία",
    "the quiet astronomer 👩‍🚀",
    "a family of otters",
    "the translator",
)
_VERBS = (
    "carried",
    "described",
    "counted",
    "repaired",
    "forgot",
    "measured",
    "followed",
    "painted",
    "uncovered",
    "exchanged",
    "remembered",
    "disassembled",
    "weighed",
    "postponed",
    "catalogued",
    "surrounded",
    "crossed",
    "mistook",
    "rebuilt",
    "borrowed",
    "set aside",
    "handed over",
    "photographed",
    "overheard",
    "re-read",
    "transliterated",
    "straightened",
    "rang up",
)
_OBJECTS = (
    "the brass telescope",
    "seventeen empty jars",
    "a map of the marshes",
    "the southern wall",
    "every bridge in the valley",
    "the unfinished symphony",
    "a crate of lemons",
    "the tide tables",
    "an encyclopaedia of knots",
    "the cafe\u0301 on the corner",
    "the missing chapter",
    "a sledge, two lamps and a kite",
    "the longest word anybody knew",
    "10\u00a0km of copper wire",
    "the recipe for crème brûlée",
    "a naïve little tune",
    "the observatory's dome",
    "its own shadow",
    "the word “immeasurably”",
    "a photograph of the glacier",
    "the 𝔊𝔬𝔱𝔥𝔦𝔠 inscription",
    "日本の古い時計",
    "counterrevolutionary pamphlets",
    "the last of the apples",
    "a box marked 🧭",
    "the ledger",
)
_TAILS = (
    "", "", "", " with great care", " and said nothing of it", " before the snow came",
    " for no reason at all", ", which surprised nobody", " under a thin moon", " until supper",
    " in a single afternoon", ", one piece at a time", " — or so it seemed", " while the kettle sang",
    " as their grandparents had done", " at the end of the pier", " twice, to be sure",
    ", laughing 😀", " (and paid for it)", " somewhere between here and Ōsaka", " by candlelight",
)  # fmt: skip
_ENDS = (".", ".", ".", ".", ".", ".", ".", "!", "…", "?")
_TITLES = (
    "The Lamp in the Window", "What the Heron Knew", "A Short History of Rain", "Crossing Places",
    "Über die Brücke", "The Clockmaker's Daughter", "Salt and Copper", "Letters from the Marsh",
    "The Weight of Apples", "An Inventory of Quiet Things", "Café au bord de l'eau", "North by Night",
)  # fmt: skip
_ODD_LINES = (
    "👨‍👩‍👧‍👦 🏳️‍🌈 🇯🇵 👍🏽", "ﬁne ﬂour, 3½ cups · 20 °C", "Ça va? — Ñandú, ångström, Größe.", "春眠不覺曉，處處聞啼鳥。",
    "e\u0301 e\u0302 n\u0303 a\u0308\u0323", "𐍈 𝒳 𝟜𝟚 🜁", "\u3000全角の字下げ", "Καλημέρα, мир, שלום.",
    "one\u2028line separator, one\u0085next line", "thin\u2009space, soft\u00adhyphen",
)  # fmt: skip


class Writer:
    """Writes block after block of one document, its sentences numbered from 1 to the end."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._sentences = 0

    def title(self) -> str:
        """A heading's words."""
        return self._pick(_TITLES)

    def sentence(self) -> str:
        """One sentence with its number before it."""
        pick = self._pick
        subject = pick(_SUBJECTS)
        opener = pick(_OPENERS)
        if not opener:
            subject = subject[0].upper() + subject[1:]
        return (
            f"{self._number()} {opener}{subject} {pick(_VERBS)} {pick(_OBJECTS)}"
            f"{pick(_TAILS)}{pick(_ENDS)}"
        )

    def block(self) -> str:
        """A paragraph, or now and then something that is not prose; without line breaks after it."""
        if self._random.random() < 0.72:
            return self.paragraph()
        return self._pick(_UNUSUAL)(self)

    def paragraph(self) -> str:
        """Three to seven sentences on one line."""
        return " ".join(self.sentence() for _ in range(self._random.randint(3, 7)))

    def code(self) -> str:
        """A fenced block with indentation by spaces and by tabs, and a Windows line end."""
        name = self._pick(("tally", "drift", "mend"))
        return (
            f"```python\ndef {name}(jars: list[int]) -> int:\n    # {self._number()} sum what is left\n"
            f"    total = 0\n    for jar in jars:\n        if jar > {self._random.randint(2, 900)}:\n"
            f"            total += jar\n\n    return total\n\n\n"
            f"\t# {self._number()} set in by a tab\r\n{name}([1, 2, 3])\n```"
        )

    def bullets(self) -> str:
        """A list with a second level."""
        count = self._random.randint(3, 5)
        return "\n".join(f"{'    ' if n == 1 else ''}- {self.sentence()}" for n in range(count))

    def table(self) -> str:
        """A table of numbered rows."""
        rows = [
            f"| {self._number()} | {self._pick(_OBJECTS)} | {self._random.randint(1, 99999):,} |"
            for _ in range(self._random.randint(2, 5))
        ]
        return "\n".join(["| row | thing | count |", "| --- | --- | ---: |", *rows])

    def tagged(self) -> str:
        """XML-like tags inside the text, with a blank line among them."""
        return f'<note kind="aside">\n  {self.sentence()}\n\n  <b>{self.sentence()}</b>\n</note>'

    def odd(self) -> str:
        """Letters and white space that are often got wrong, between two sentences."""
        return f"{self.sentence()}\n\n    {self._pick(_ODD_LINES)}\n\n\n{self.sentence()}"

    def _number(self) -> str:
        self._sentences += 1
        return f"({self._sentences})"

    def _pick(self, choices: Sequence[_T]) -> _T:
        return choices[int(self._random.random() * len(choices))]


_UNUSUAL: tuple[Callable[[Writer], str], ...] = (
    Writer.code,
    Writer.bullets,
    Writer.table,
    Writer.tagged,
    Writer.odd,
)
