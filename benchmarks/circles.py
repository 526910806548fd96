"""How often real texts are taken for circles, and how many made circles are caught.

    python benchmarks/circles.py [FOLDER…]

Without folders: Python's own library, installed packages, licences and /usr/share/doc. Further
folders may hold any texts. Prints the tables of docs/continuation.md; figures depend on what is
installed. Nothing is timed but the look itself, in CPU seconds a million characters.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from runner.continuation import circles
from runner.continuation.document import GrowingDocument

MOST = 200_000  # characters of one text that are looked at
FILES = 2_500  # of the texts found, drawn at random
LIBRARY = Path(json.__file__).parents[1]
KINDS = {
    ".py": "source code",
    ".js": "source code",
    ".c": "source code",
    ".h": "source code",
    ".sh": "source code",
    ".csv": "tables (CSV)",
    ".tsv": "tables (CSV)",
    ".json": "JSON, XML, HTML",
    ".xml": "JSON, XML, HTML",
    ".html": "JSON, XML, HTML",
    ".md": "manuals",
    ".rst": "manuals",
    ".log": "logs",
    ".verse": "verse and scripture",
}


def look(text: str) -> circles.Circle | None:
    """Streams a text as a worker would: a look every few thousand characters."""
    document = GrowingDocument()
    for at in range(0, len(text), circles.LOOK_EVERY):
        document.add(text[at : at + circles.LOOK_EVERY])
        if found := circles.find(document):
            return found
    return None


def texts(folders: list[Path]) -> Iterator[tuple[str, Path, str]]:
    """Real texts long enough to be looked at, by kind."""
    paths = [p for folder in folders for p in sorted(folder.rglob("*")) if p.is_file()]
    Random(1).shuffle(paths)
    paths.sort(key=lambda path: KINDS.get(path.suffix) == "source code")  # there is most of it
    found = 0
    seen: set[int] = set()
    for path in paths:
        if path.stat().st_size <= circles.LEAST or found == FILES:
            continue
        try:
            text = path.read_text()[:MOST]
        except (UnicodeDecodeError, OSError):
            continue
        if "\0" in text or hash(text) in seen:
            continue
        seen.add(hash(text))
        found += 1
        licence = "licen" in str(path).lower() or path.name == "copyright"
        yield "licences" if licence else KINDS.get(path.suffix, "other texts"), path, text


def words_of(random: Random, size: int) -> list[str]:
    source = (LIBRARY / "pydoc_data" / "topics.py").read_text().split()
    at = random.randrange(len(source) - size)
    return source[at : at + size]


def same(_random: Random, words: list[str], _: int) -> str:
    return " ".join(words)


def slips(random: Random, words: list[str], _: int) -> str:
    changed = list(words)
    if random.random() < 0.3:
        changed[random.randrange(len(changed))] = "well"
    return " ".join(changed)


def spaced(random: Random, words: list[str], _: int) -> str:
    return " ".join(word + random.choice(("", "", "", "\n")) for word in words).capitalize()


def counted(_random: Random, words: list[str], n: int) -> str:
    return f"{n}. " + " ".join(words)


MADE: dict[str, tuple[Callable[[Random, list[str], int], str], tuple[int, int]]] = {
    "the same word or phrase": (same, (1, 6)),
    "the same sentence": (same, (8, 30)),
    "the same paragraph": (same, (50, 300)),
    "the same chapter": (same, (400, 2_000)),
    "a paragraph, a word now and then another": (slips, (50, 300)),
    "a paragraph, its white space and capitals changed": (spaced, (50, 300)),
    "a paragraph, each time with its number": (counted, (50, 300)),
    "a line, each time with its number": (counted, (8, 15)),
}


def main() -> None:
    folders = [Path(name) for name in sys.argv[1:]] or [
        LIBRARY,
        Path("/usr/share/common-licenses"),
        Path("/usr/share/doc"),
    ]
    looked: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    started = time.process_time()
    for kind, path, text in texts(folders):
        row = looked[kind]
        row[0] += 1
        row[1] += len(text)
        if found := look(text):
            row[2] += 1
            print(f"alarm: {path}: {found}", file=sys.stderr)
    seconds = time.process_time() - started
    total = [sum(row[column] for row in looked.values()) for column in range(3)]
    print("| real texts | files | million characters | false alarms |\n| --- | --- | --- | --- |")
    for kind, (files, characters, alarms) in sorted(looked.items()):
        print(f"| {kind} | {files:,} | {characters / 1e6:.1f} | {alarms} |")
    print(f"| all | {total[0]:,} | {total[1] / 1e6:.1f} | {total[2]} |\n")
    print(f"{seconds / total[1] * 1e6:.2f} CPU seconds a million characters\n")
    print("| made circles | caught | characters until then (median) |\n| --- | --- | --- |")
    for name, (make, (least, most)) in MADE.items():
        ends = []
        for seed in range(100):
            random = Random(seed)
            words = words_of(random, random.randint(least, most))
            rounds = (make(random, words, n) + "\n" for n in range(100_000))
            text = " ".join(words_of(random, 3_000)) + "\n"
            start = len(text)
            parts = [text]
            while len(text) < start + 80_000:
                parts.append(next(rounds))
                text += parts[-1]
            document = GrowingDocument()
            for at in range(0, len(text), circles.LOOK_EVERY):
                document.add(text[at : at + circles.LOOK_EVERY])
                if circles.find(document):
                    ends.append(len(document) - start)
                    break
        median = f"{sorted(ends)[len(ends) // 2]:,}" if ends else "-"
        print(f"| {name} | {len(ends)} of 100 | {median} |")


if __name__ == "__main__":
    main()
