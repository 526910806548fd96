"""Against a model and a server that are not ours: a continued document is one endless call's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.real_model.recipe import block

CALL_TOKENS, DOCUMENT_TOKENS = 50, 200
# Strips of white space and torn characters are generated twice, and count twice.
LEAST_SHARE = 0.9
DEADLINE_S = 400

PROMPTS = {
    "fox": "Please write a story about a fox in five chapters.",
    "bread": "Explain how bread is baked.",
    "train": "Write a letter to a friend about a journey by train.",
    "planets": "List the planets and say something about each.",
    "poem": "Write a poem about the sea.",
    "tree": "Give instructions for planting a tree.",
    "press": "Tell the history of the printing press.",
    "code": "Write a Python function that sorts a list, with explanation.",
    "water": "Explain the water cycle.",
    "emoji": "Tell a joke with many emoji 😀🎉",  # three tokens a character: every cut is torn
}


@dataclass(frozen=True)
class Folder:
    """A folder with a job file, and `runner` run in it as a user would."""

    path: Path
    env: dict[str, str]

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "runner", *arguments]

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        command = self.command(*arguments)
        return subprocess.Popen(command, cwd=self.path, env=self.env, text=True, **options)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.path,
            env=self.env,
            text=True,
            capture_output=True,
            timeout=DEADLINE_S,
        )

    def documents(self) -> dict[str, dict[str, Any]]:
        """What `runner export` gives, by job id."""
        self.run("export", "--out", "out", "--format", "jsonl")
        files = sorted((self.path / "out").glob("*.jsonl"))
        lines = [line for file in files for line in file.read_text().split("\n") if line]
        return {document["id"]: document for document in map(json.loads, lines)}


@pytest.fixture
def folder(llama_server: str, tmp_path: Path) -> Callable[[dict[str, str]], Folder]:
    def make(prompts: dict[str, str]) -> Folder:
        job_file = {
            "version": 1,
            "batch": "endless",
            "defaults": {
                "model": "smollm2",
                "max_tokens": CALL_TOKENS,
                "continuation": {"strategy": "prefill", "max_output_tokens": DOCUMENT_TOKENS},
            },
            "limits": {"concurrency": 1},
            "jobs": [{"id": name, "prompt": prompt} for name, prompt in prompts.items()],
        }
        (tmp_path / "jobs.yaml").write_text(json.dumps(job_file, ensure_ascii=False), "utf-8")
        return Folder(tmp_path, environment(llama_server))

    return make


def environment(llama_server: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANTHROPIC_")}
    return {**kept, "ANTHROPIC_BASE_URL": llama_server, "RUNNER_DB": "runner.db"}


@cache
def one_call(llama_server: str, prompt: str) -> tuple[str, str]:
    """Text and stop reason of a single call, read with none of our own code."""
    body = {
        "model": "smollm2",
        "max_tokens": DOCUMENT_TOKENS,
        "stream": True,
        "messages": [{"role": "user", "content": prompt}],
    }
    text, stop_reason = "", ""
    url = f"{llama_server}/v1/messages"
    with httpx2.stream("POST", url, json=body, timeout=DEADLINE_S) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                if event["type"] == "content_block_delta":
                    text += event["delta"]["text"]
                elif event["type"] == "message_delta":
                    stop_reason = event["delta"]["stop_reason"]
    return text, stop_reason


def assert_is_of_one_call(document: dict[str, Any], llama_server: str, prompt: str) -> None:
    endless, stop_reason = one_call(llama_server, prompt)
    text = document["text"]
    assert endless[: len(text)] == text[: len(endless)]
    if document["finish"] == stop_reason == "end_turn":
        assert text == endless
    elif document["finish"] == "max_output_tokens":
        assert sum(c["usage"]["output_tokens"] for c in document["calls"]) >= DOCUMENT_TOKENS
    # What streamed in after the last checkpoint before a kill was paid for, and counts, too.
    lost = sum(c["lost_output_tokens"] for c in document["calls"])
    assert lost <= CALL_TOKENS
    least = LEAST_SHARE * (1 - lost / DOCUMENT_TOKENS)
    assert min(len(text), len(endless)) >= least * max(len(text), len(endless))


def test_continued_documents_are_what_one_call_gives(
    llama_server: str, folder: Callable[[dict[str, str]], Folder]
) -> None:
    here = folder(PROMPTS)
    run = here.run("run", "jobs.yaml")
    documents = here.documents()
    assert documents.keys() == PROMPTS.keys(), run.stderr
    for name, prompt in PROMPTS.items():
        assert len(documents[name]["calls"]) >= DOCUMENT_TOKENS // CALL_TOKENS, run.stderr
        assert_is_of_one_call(documents[name], llama_server, prompt)


def test_kill_9_in_mid_stream_does_not_change_the_text(
    llama_server: str, folder: Callable[[dict[str, str]], Folder]
) -> None:
    here = folder({"train": PROMPTS["train"]})
    assert here.run("submit", "jobs.yaml").returncode == 0  # so that there is something to follow
    seen = 0
    for length in (20, 300, 500):  # in the first, the second and the third call
        with (
            here.start("tail", "train", "-f", "-n", "1000", stdout=subprocess.PIPE) as tail,
            here.start("run", "jobs.yaml", stderr=subprocess.DEVNULL) as run,
        ):
            assert tail.stdout is not None
            assert len(tail.stdout.read(length)) == length
            run.kill()
            tail.kill()
            assert run.wait() == -9
        show = json.loads(here.run("show", "train", "--json").stdout)
        assert not show["complete"]
        assert len(show["calls"]) > seen
        seen = len(show["calls"])
    here.run("run", "jobs.yaml")
    document = here.documents()["train"]
    assert_is_of_one_call(document, llama_server, PROMPTS["train"])


def test_the_page_runs_as_it_stands(llama_server: str, tmp_path: Path) -> None:
    (tmp_path / "local.yaml").write_text(block("file", "local.yaml"))
    commands = block("command", "local").replace("http://127.0.0.1:8080", llama_server)
    scripts = Path(sys.executable).parent
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env={**environment(llama_server), "PATH": path},
        text=True,
        capture_output=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "local" / "local" / "sorting.md").read_text()
