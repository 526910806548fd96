"""True documents, their tokens, and every chain of cuts through them."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.simulator.books import Books, Coverage
from runner.simulator.cache import InputUsage
from runner.simulator.documents import Document, Library
from runner.simulator.generate import Answer, answer
from runner.simulator.tokens import count_tokens, token_ends, tokens_between
from runner.simulator.validate import read_request

LIBRARY = Library(0, (600, 1200))
FIVE_STORIES = "Please write five stories, each in its own tags: <story_1></story_1> and so on."


def ask(prompt: str, prefill: str = "", **fields: Any) -> tuple[Document, Answer]:
    messages = [{"role": "user", "content": prompt}]
    if prefill:
        messages.append({"role": "assistant", "content": prefill})
    tear = fields.pop("tear_characters", False)
    room = fields.pop("room_tokens", 10**6)
    body = {"model": "claude-haiku-4-5", "max_tokens": 64_000, "messages": messages, **fields}
    request = read_request(body, "2023-06-01")
    document = LIBRARY.document(request)
    given = answer(request, document, document.markers, room_tokens=room, tear_characters=tear)
    return document, given


def text_of(given: Answer, tokens_per_piece: int = 1) -> str:
    return "".join(piece.text for piece in given.pieces(tokens_per_piece))


@pytest.mark.parametrize("prompt", ["a", "b", FIVE_STORIES, "about 12,000 words on knots"])
def test_sentences_are_numbered_without_a_gap(prompt: str) -> None:
    text = ask(prompt)[0].text
    numbers = [int(number) for number in re.findall(r"\((\d+)\)", text)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_documents_hold_everything_that_is_often_got_wrong() -> None:
    text = "".join(ask(f"prompt {n}")[0].text for n in range(60))
    for wanted in ("```", "\n    - ", "| --- |", "<note", "\n\n\n", "\r\n", "\t", "\u2028", "\xa0"):
        assert wanted in text, repr(wanted)
    assert "👩\u200d🚀" in text
    assert any(ord(letter) > 0xFFFF for letter in text)
    assert any(unicodedata.combining(letter) for letter in text)
    assert any("CJK" in unicodedata.name(letter, "") for letter in text)
    assert "\ufffd" not in text


def test_a_prompt_has_one_document_and_the_seed_changes_it() -> None:
    body = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": []}
    plain = body | {"messages": [{"role": "user", "content": "one prompt"}]}
    blocks = [{"type": "text", "text": "one prompt", "cache_control": {"type": "ephemeral"}}]
    in_blocks = body | {"messages": [{"role": "user", "content": blocks}]}
    other = body | {"messages": [{"role": "user", "content": "another prompt"}]}

    def drawn(library: Library, given: dict[str, Any]) -> str:
        return library.document(read_request(given, "2023-06-01")).text

    assert drawn(LIBRARY, plain) == drawn(Library(0, (600, 1200)), in_blocks)
    assert drawn(LIBRARY, plain) != drawn(LIBRARY, other)
    assert drawn(LIBRARY, plain) != drawn(Library(1, (600, 1200)), plain)


@pytest.mark.parametrize("seed", range(8))
def test_five_stories_are_cut_in_the_fifth_and_finished_in_the_second_call(seed: int) -> None:
    prompt = f"{FIVE_STORIES} Mind the number {seed}."
    document, first = ask(prompt, max_tokens=4096)
    assert first.stop_reason == "max_tokens"
    text = text_of(first)
    assert "<story_5>" in text
    assert "</story_5>" not in text
    _, second = ask(prompt, text.rstrip(), max_tokens=4096)
    assert second.stop_reason == "end_turn"
    assert text.rstrip() + text_of(second) == document.text
    assert document.text.endswith("</story_5>")


@pytest.mark.parametrize("count", [("3", 3), ("seven", 7), ("two very different", 2)])
def test_as_many_stories_as_are_asked_for(count: tuple[str, int]) -> None:
    text = ask(f"Write {count[0]} stories: <story_1>…</story_1> etc.")[0].text
    tags = re.findall(r"</story_(\d+)>", text)
    assert [int(tag) for tag in tags] == list(range(1, count[1] + 1))


@pytest.mark.parametrize(
    ("wish", "words"),
    [("in 300 words", 300), ("about 12,000 words", 12_000), ("A 50-word note", 50)],
)
def test_a_wish_for_a_length_is_roughly_kept(wish: str, words: int) -> None:
    assert ask(f"Tell me of rain, {wish}.")[0].text.split().__len__() == pytest.approx(
        words, rel=0.3
    )


def test_a_marker_sets_the_length_in_tokens() -> None:
    assert len(ask("x [[simulate: tokens=500]]")[0].ends) == pytest.approx(500, rel=0.1)


def test_tokens_are_about_four_characters_and_cut_words_and_white_space() -> None:
    document = ask("tokens, 5,000 words")[0]
    assert 3.0 < len(document.text) / len(document.ends) < 5.0
    tokens = [document.text[a:b] for a, b in pairwise([0, *document.ends])]
    assert "".join(tokens) == document.text
    assert any(b[0].isalpha() and a[-1].isalpha() for a, b in pairwise(tokens))
    assert any(a[-1].isspace() and b[0].isspace() for a, b in pairwise(tokens))


@given(st.text(), st.data())
def test_tokens_between_counts_the_tokens_touched(text: str, data: st.DataObject) -> None:
    ends = token_ends(text)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    spans = list(pairwise([0, *ends]))
    touched = sum(1 for a, b in spans if max(a, start) < min(b, end))
    assert tokens_between(ends, start, end) == touched
    assert len(ends) == count_tokens(text)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 5), st.lists(st.integers(1, 400), min_size=1, max_size=12), st.booleans())
def test_any_chain_of_prefilled_calls_gives_the_document(
    number: int, cuts: list[int], tear: bool
) -> None:
    prompt = f"chain {number}"
    text, calls = "", 0
    while True:
        kept = text.removesuffix("\ufffd").rstrip()
        limit = cuts[calls % len(cuts)] + 8  # so that white space alone is never all of a call
        document, given = ask(prompt, kept, max_tokens=limit, tear_characters=tear)
        text = kept + text_of(given, tokens_per_piece=1 + calls % 4)
        calls += 1
        if given.stop_reason == "end_turn":
            break
        assert given.output_tokens == given.token_count == limit
    assert text == document.text


@given(st.data())
def test_a_prefill_may_end_at_any_character(data: st.DataObject) -> None:
    document, _ = ask("any character")
    offset = data.draw(st.integers(1, len(document.text)))
    prefill = document.text[:offset].rstrip()
    assert prefill + text_of(ask("any character", prefill)[1]) == document.text


def test_the_whole_document_as_prefill_gives_an_empty_answer() -> None:
    document, _ = ask("b")
    assert not document.text[-1].isspace()
    _, given = ask("b", document.text)
    assert (text_of(given), given.stop_reason, given.output_tokens) == ("", "end_turn", 2)


def test_a_stop_sequence_ends_the_answer_and_is_no_part_of_it() -> None:
    document, given = ask(FIVE_STORIES, stop_sequences=["never there", "</story_2>"])
    assert (given.stop_reason, given.stop_sequence) == ("stop_sequence", "</story_2>")
    assert text_of(given) == document.text[: document.text.index("</story_2>")]


def test_a_stop_sequence_that_begins_in_the_prefill_is_not_seen() -> None:
    document, _ = ask(FIVE_STORIES)
    inside = document.text.index("</story_2>") + 4
    _, given = ask(FIVE_STORIES, document.text[:inside], stop_sequences=["</story_2>"])
    assert given.stop_reason == "end_turn"
    assert document.text[:inside] + text_of(given) == document.text


def test_a_stop_sequence_right_behind_the_prefill_leaves_no_text() -> None:
    document, _ = ask(FIVE_STORIES)
    before = document.text[: document.text.index("</story_2>")].rstrip()
    _, given = ask(FIVE_STORIES, before, stop_sequences=["</story_2>"])
    assert (text_of(given).strip(), given.stop_reason) == ("", "stop_sequence")


def test_of_two_stop_sequences_the_one_complete_first_counts() -> None:
    document, given = ask("a", stop_sequences=["(2) ", "(2", "(9)"])
    assert given.stop_sequence == "(2"
    assert text_of(given) == document.text[: document.text.index("(2")]


def test_the_context_window_ends_an_answer() -> None:
    _, given = ask("a", room_tokens=20)
    assert (given.stop_reason, given.token_count) == ("model_context_window_exceeded", 20)


def test_a_refusal_may_come_after_some_text() -> None:
    prompt = "[[simulate: refusal=cyber refusal_after=30]]"
    document, given = ask(prompt)
    assert (given.stop_reason, given.refusal, given.token_count) == ("refusal", "cyber", 30)
    _, again = ask(prompt, document.text[: document.ends[39]].rstrip())
    assert (text_of(again), again.stop_reason) == ("", "refusal")


def test_a_torn_character_is_the_last_of_a_cut() -> None:
    document, _ = ask("tear")
    place = next(
        n for n, end in enumerate(document.ends) if n > 5 and not document.text[end].isascii()
    )
    _, given = ask("tear", max_tokens=place + 2, tear_characters=True)
    assert text_of(given) == document.text[: document.ends[place]] + "\ufffd"
    assert given.output_tokens == place + 2


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=30))
def test_coverage_knows_what_was_written_before(spans: list[tuple[int, int]]) -> None:
    coverage, known = Coverage(), set[int]()
    for start, length in spans:
        span = set(range(start, start + length))
        overlap = set[int]()
        for low, high in coverage.add(start, start + length):
            overlap |= set(range(low, high))
        assert overlap == span & known
        known |= span
        assert coverage.characters == len(known)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 600), st.integers(1, 300)), min_size=1, max_size=8))
def test_the_books_count_each_token_generated_again(calls: list[tuple[int, int]]) -> None:
    """Against a plain count: a token is doubled where an earlier call has generated it."""
    books, seen, total, twice = Books(), set[int](), 0, 0
    for first, limit in calls:
        document, _ = ask("books")
        prefill = document.text[: document.ends[first - 1]].rstrip() if first else ""
        _, given = ask("books", prefill, max_tokens=limit)
        prompt = books.begun(document, prefill, InputUsage(1))
        for piece in given.pieces(3):
            books.generated(prompt, document, piece.start, piece.end, piece.tokens)
        tokens = set(range(given.first_token, given.last_token))
        total += len(tokens)
        twice += len(tokens & seen)
        seen |= tokens
    assert (books.tokens_generated, books.tokens_generated_twice) == (total, twice)
    assert books.divergences == 0


def test_books_know_restarts_and_divergences() -> None:
    books = Books()
    document, given = ask("a", max_tokens=50)
    prompt = books.begun(document, "", InputUsage(7))
    for piece in given.pieces(1):
        books.generated(prompt, document, piece.start, piece.end, piece.tokens)
    books.begun(document, "", InputUsage(7))
    books.begun(document, document.text[:30] + "xyz", InputUsage(7))
    assert (books.restarts, books.divergences, books.input_tokens) == (1, 1, 21)
    assert books.restart_log[0].generated_tokens == 50
    entry = books.divergence_log[0]
    assert (entry.offset, entry.given) == (30, "xyz")
    assert entry.expected == document.text[30:70]
