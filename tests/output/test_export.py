"""Export: what stands in which file, safely and whole."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import ExportError, NotFound
from runner.jobs.spec import BatchSpec
from runner.jobs.states import Finish, State
from runner.output.document import read_document
from runner.output.export import Format, export
from runner.output.folder import Folder
from runner.output.names import Names
from runner.store.records import OnConflict, Settlement
from runner.store.store import Store
from tests.cli.filled import CUT, HALF, HOSTILE, WHOLE, Writer, fill, job

pytestmark = pytest.mark.anyio

DONE = Settlement(State.COMPLETED, finish=Finish.END_TURN)


def lines(path: Path) -> dict[str, dict[str, object]]:
    return {value["id"]: value for value in map(json.loads, path.read_text().splitlines())}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


async def finish(store: Store, batch_key: int, text: str, settlement: Settlement = DONE) -> None:
    writer = await Writer(store, uuid4().hex).begin()
    claim = await writer.claim(batch_key)
    call = await writer.open_call(claim, 1, 0)
    await writer.save(claim, call, text)
    await writer.settle(claim, call, "end_turn", settlement)


async def test_every_kind_has_its_place(tmp_path: Path, database: str) -> None:
    await fill(database)
    out = tmp_path / "out"
    async with await Store.open(database) as store:
        receipt = await export(store, out)
    assert files(out) == {
        "animals.jsonl",
        "animals.cut.jsonl",
        "animals/heron.md",
        "animals/cut/badger.cut.md",
        "animals/cut/fox.cut.md",
        "dull.jsonl",
        "dull/heron.md",
    }
    assert (out / "animals/heron.md").read_bytes() == WHOLE.encode()
    cut = (out / "animals/cut/badger.cut.md").read_text()
    assert cut.splitlines()[0] == (
        "> **This document is not complete** (cut, max_calls; state completed, 1 call)."
    )
    assert cut.endswith(f"\n\n{CUT}")
    assert HOSTILE not in (out / "animals/cut/fox.cut.md").read_text().splitlines()[0]
    assert (receipt.written, receipt.all_complete) == (4, False)
    assert {word.value: count for word, count in receipt.counts.items()} == {
        "complete": 2,
        "cut": 1,
        "failed": 1,
        "cancelled": 0,
        "unfinished": 2,
    }


async def test_a_line_lets_every_seam_be_checked(tmp_path: Path, database: str) -> None:
    await fill(database)
    out = tmp_path / "out"
    async with await Store.open(database) as store:
        await export(store, out, format=Format.JSONL)
    assert files(out) == {"animals.jsonl", "animals.cut.jsonl", "dull.jsonl"}
    heron = lines(out / "animals.jsonl")["heron"]
    assert heron["text"] == WHOLE
    assert (heron["complete"], heron["finish"], heron["metadata"]) == (
        True,
        "end_turn",
        {"part": "heron"},
    )
    calls = heron["calls"]
    assert isinstance(calls, list)
    assert calls[1]["number"] == 2
    assert calls[1]["resume_at"] == 30
    assert calls[1]["verdict"] == "exact"
    assert calls[1]["request_id"] == "req_1"
    assert calls[1]["usage"]["output_tokens"] == 400
    assert heron["seams"] == [{"call": 2, "at": 30, "strategy": "prefill", "verdict": "exact"}]
    others = lines(out / "animals.cut.jsonl")
    assert set(others) == {"badger", "fox"}
    assert not any(other["complete"] for other in others.values())
    assert others["fox"]["text"] == HOSTILE  # a file is no terminal: the text is as it is


async def test_unfinished_documents_only_when_asked_for_and_marked(
    tmp_path: Path, database: str
) -> None:
    await fill(database)
    out = tmp_path / "out"
    async with await Store.open(database) as store:
        receipt = await export(store, out, unfinished=True)
    owl = (out / "animals/cut/owl.cut.md").read_text()
    assert owl.startswith("> **This document is not complete** (unfinished; state executing")
    assert owl.endswith(HALF)
    assert lines(out / "animals.cut.jsonl")["owl"]["complete"] is False
    assert (receipt.written, sum(receipt.counts.values())) == (6, 6)


async def test_a_document_stands_in_one_place_only(tmp_path: Path, database: str) -> None:
    out = tmp_path / "out"
    async with await Store.open(database) as store:
        receipt = await store.submit(BatchSpec("b"), [job("j"), job("other")])
        cut = Settlement(State.COMPLETED, finish=Finish.STALLED)
        await finish(store, receipt.batch_key, "cut", cut)
        await export(store, out)
        (out / "b/cut/notes.md").write_text("the user's own")
        (out / "b/cut/other.cut.md").write_text("of a job that is not final")
        changed = [job("j", "Another prompt.")]
        await store.submit(BatchSpec("b"), changed, on_conflict=OnConflict.REPLACE)
        await finish(store, receipt.batch_key, "whole")
        done = await export(store, out)
        assert files(out) == {"b.jsonl", "b/j.md", "b/cut/notes.md", "b/cut/other.cut.md"}
        assert {path.name for path in done.removed} == {"j.cut.md", "b.cut.jsonl"}
        changed = [job("j", "A third prompt.")]
        await store.submit(BatchSpec("b"), changed, on_conflict=OnConflict.REPLACE)
        await finish(store, receipt.batch_key, "cut again", cut)
        await export(store, out)
        assert not (out / "b/j.md").exists()
        assert (out / "b/cut/j.cut.md").read_text().endswith("cut again")


async def test_only_the_batches_asked_for(tmp_path: Path, database: str) -> None:
    await fill(database)
    async with await Store.open(database) as store:
        receipt = await export(store, tmp_path / "out", batches=["dull"])
        assert files(tmp_path / "out") == {"dull.jsonl", "dull/heron.md"}
        assert receipt.all_complete
        with pytest.raises(NotFound, match="no batch plants in the database; there are: animals"):
            await export(store, tmp_path / "out", batches=["dull", "plants"])


async def one_document(path: Path, text: str = "whole") -> Store:
    store = await Store.open(path)
    receipt = await store.submit(BatchSpec("b"), [job("j")])
    await finish(store, receipt.batch_key, text)
    return store


@pytest.mark.parametrize(
    "left", ["b", "b/cut", "b/j.md", "b.jsonl", "b/cut/j.cut.md", "b.cut.jsonl"]
)
async def test_symbolic_links_are_refused(tmp_path: Path, left: str, database: str) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = elsewhere / "target"
    link = out / left
    link.parent.mkdir(parents=True, exist_ok=True)
    if "." in left:
        target.write_text("mine")
    else:
        target.mkdir()
    link.symlink_to(target)
    async with await one_document(database) as store:
        with pytest.raises(ExportError, match="stands in the way"):
            await export(store, out)
    assert files(elsewhere) <= {"target"}
    if target.is_file():
        assert target.read_text() == "mine"


@pytest.mark.parametrize("left", ["b/.j.md.part", ".b.jsonl.part"])
async def test_what_a_killed_export_left_is_replaced_and_not_followed(
    tmp_path: Path, left: str, database: str
) -> None:
    out, target = tmp_path / "out", tmp_path / "target"
    target.write_text("mine")
    (out / "b").mkdir(parents=True)
    (out / left).symlink_to(target)
    async with await one_document(database) as store:
        await export(store, out)
    assert target.read_text() == "mine"
    assert files(out) == {"b.jsonl", "b/j.md"}


async def test_the_folder_itself_may_be_a_link(tmp_path: Path, database: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    async with await one_document(database) as store:
        await export(store, tmp_path / "out")
    assert files(tmp_path / "real") == {"b.jsonl", "b/j.md"}


async def test_a_failed_write_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    out = tmp_path / "out"
    async with await one_document(database) as store:
        await export(store, out)
        before = {name: (out / name).read_bytes() for name in files(out)}

        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ExportError, match="No space left on device"):
            await export(store, out)
        monkeypatch.undo()
    assert {name: (out / name).read_bytes() for name in files(out)} == before


async def test_a_file_where_a_folder_should_be(tmp_path: Path, database: str) -> None:
    (tmp_path / "out").write_text("a file")
    async with await one_document(database) as store:
        with pytest.raises(ExportError, match="out"):
            await export(store, tmp_path / "out")


async def test_two_exports_at_once_do_not_meet(tmp_path: Path, database: str) -> None:
    async with await one_document(database) as store:
        with Folder.open(tmp_path / "out"), pytest.raises(ExportError, match="another export"):
            await export(store, tmp_path / "out")
        await export(store, tmp_path / "out")


async def test_text_goes_to_the_file_as_it_is(tmp_path: Path, database: str) -> None:
    text = "a\r\nb\u2028\u2029\x85c\x0b \ttabs, żółw 👩‍🚀\n\n"
    async with await one_document(database, text) as store:
        await export(store, tmp_path / "out")
    assert (tmp_path / "out/b/j.md").read_bytes() == text.encode()
    assert lines(tmp_path / "out/b.jsonl")["j"]["text"] == text


async def test_ids_that_differ_in_case_only_get_files_of_their_own(
    tmp_path: Path, database: str
) -> None:
    ids = ["Story", "story", "plain", "CON", "aux"]
    async with await Store.open(database) as store:
        receipt = await store.submit(BatchSpec("b"), list(map(job, ids)))
        for number in range(len(ids)):
            await finish(store, receipt.batch_key, f"text {number}")
        await export(store, tmp_path / "out", format=Format.MARKDOWN)
    names = [path.name for path in (tmp_path / "out/b").iterdir()]
    assert len({name.casefold() for name in names}) == len(ids)
    assert "plain.md" in names
    assert not {"con.md", "aux.md"} & {name.casefold() for name in names}
    texts = {path.read_text() for path in (tmp_path / "out/b").iterdir()}
    assert texts == {f"text {number}" for number in range(len(ids))}


@given(st.lists(st.text(max_size=80), unique=True, max_size=20))
def test_names_are_safe_and_never_meet(ids: list[str]) -> None:
    names = Names()
    for known in ids:
        names.add(known)
    given_names = list(map(names.name, ids))
    assert len({name.casefold() for name in given_names}) == len(ids)
    for name in given_names:
        assert name.strip(".")
        assert "/" not in name
        assert "\0" not in name
        assert len(f".{name}.cut.md.part") < 255
        assert name.isascii()
        assert Path(name).name == name


@pytest.mark.parametrize(
    "id", ["..", ".", "", "../up", "/etc/passwd", "a/b", "a\\b", "a\0b", "NUL", "com1"]
)
def test_hostile_ids_stay_in_the_folder(id: str, tmp_path: Path) -> None:
    name = Names().name(id)
    assert (tmp_path / name).parent == tmp_path
    assert name not in (".", "..", "")
    assert "~" in name


async def test_a_document_replaced_while_it_is_read_is_not_called_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    async with await one_document(database) as store:
        true_calls = store.calls
        replaced = False

        async def calls(job_key: int) -> object:
            nonlocal replaced
            if not replaced:
                replaced = True
                changed = [job("j", "Another prompt.")]
                await store.submit(BatchSpec("b"), changed, on_conflict=OnConflict.REPLACE)
            return await true_calls(job_key)

        monkeypatch.setattr(store, "calls", calls)
        receipt = await export(store, tmp_path / "out")
    assert receipt.written == 0
    assert files(tmp_path / "out") == {"b.jsonl"}
    assert (tmp_path / "out/b.jsonl").read_text() == ""


async def test_of_documents_read_together_one_may_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    async with await Store.open(database) as store:
        key = (await store.submit(BatchSpec("b"), [job(name) for name in "ijk"])).batch_key
        for name in "ijk":
            await finish(store, key, f"text of {name}")
        true_calls = store.calls_of

        async def calls_of(job_keys: Sequence[int]) -> object:
            found = await true_calls(job_keys)
            changed = [job("j", "Another prompt.")]
            await store.submit(BatchSpec("b"), changed, on_conflict=OnConflict.REPLACE)
            return found

        monkeypatch.setattr(store, "calls_of", calls_of)
        receipt = await export(store, tmp_path / "out")
    assert receipt.written == 2
    assert {name: value["text"] for name, value in lines(tmp_path / "out/b.jsonl").items()} == {
        "i": "text of i",
        "k": "text of k",
    }


async def test_a_document_that_ends_while_it_is_read_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    async with await Store.open(database) as store:
        receipt = await store.submit(BatchSpec("b"), [job("j")])
        writer = await Writer(store).begin()
        claim = await writer.claim(receipt.batch_key)
        call = await writer.open_call(claim, 1, 0)
        await writer.save(claim, call, "half")
        true_calls, ended = store.calls, False

        async def calls(job_key: int) -> object:
            nonlocal ended
            found = await true_calls(job_key)
            if not ended:
                ended = True
                await writer.save(claim, call, " and whole")
                await writer.settle(claim, call, "end_turn", DONE)
            return found

        monkeypatch.setattr(store, "calls", calls)
        document = await read_document(store, await store.find_job("j"))
    assert document.complete
    assert document.text == "half and whole"
