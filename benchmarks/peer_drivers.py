"""One run of one peer, by the interpreter of the peers' own environment; `peers.py` calls it.

    python peer_drivers.py PEER URL JOBS LENGTH CONCURRENCY MAX_TOKENS FOLDER

Each peer is configured as its own documentation shows for a long run that is to be resumed: its file
of finished results, the concurrency, and nothing else. Writes FOLDER/result.json: by document, the text
that it hands over as a success, or null.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from functools import partial
from pathlib import Path

MODEL = "claude-haiku-4-5"
KEY = "bench-key-123"


def prompts(jobs: int, length: int) -> list[str]:
    return [f"Write document {number} of {length} characters." for number in range(jobs)]


async def async_batch_llm(
    url: str, texts: list[str], concurrency: int, max_tokens: int, folder: Path, *, streams: bool
) -> list[str | None]:
    """The official SDK's client in a `CallableStrategy`; finished results in JSONL, each on the disk.

    The SDK refuses to ask for long answers in one piece, and its own way to have them is
    `messages.stream`.
    """
    from anthropic import AsyncAnthropic
    from async_batch_llm import (
        ArtifactIdentity,
        CallableStrategy,
        CallOutcome,
        JsonlArtifactStore,
        ProcessorConfig,
        ResumePolicy,
        process_prompts,
    )

    client = AsyncAnthropic(api_key=KEY, base_url=url, max_retries=0)

    async def ask(prompt: str):  # type: ignore[no-untyped-def]
        messages = [{"role": "user", "content": prompt}]
        if not streams:
            return await client.messages.create(
                model=MODEL, max_tokens=max_tokens, messages=messages
            )
        async with client.messages.stream(
            model=MODEL, max_tokens=max_tokens, messages=messages
        ) as stream:
            return await stream.get_final_message()

    async def invoke(prompt, **_):  # type: ignore[no-untyped-def]
        answer = await ask(prompt)
        return CallOutcome(
            answer.content[0].text,
            token_usage={
                "input_tokens": answer.usage.input_tokens,
                "output_tokens": answer.usage.output_tokens,
                "total_tokens": answer.usage.input_tokens + answer.usage.output_tokens,
            },
        )

    identity = ArtifactIdentity(provider="bench", model=MODEL)
    batch = await process_prompts(
        CallableStrategy(invoke, identity=identity),
        [(str(number), text) for number, text in enumerate(texts)],
        config=ProcessorConfig(concurrency=concurrency),
        artifact_store=JsonlArtifactStore(folder / "results.jsonl", identity=identity, fsync=True),
        resume=ResumePolicy.REUSE_SUCCESSES,
        preserve_order=True,
    )
    return [result.output if result.success else None for result in batch.results]


async def flexllm(
    url: str, texts: list[str], concurrency: int, max_tokens: int, folder: Path
) -> list[str | None]:
    """Its own client for Claude, on aiohttp; finished results in JSONL, flushed every second."""
    from flexllm import LLMClient

    async with LLMClient(
        provider="claude", base_url=f"{url}/v1", api_key=KEY, model=MODEL,
        concurrency_limit=concurrency, max_qps=100_000,
    ) as client:  # fmt: skip
        results = await client.chat_batch(
            [[{"role": "user", "content": text}] for text in texts],
            output_jsonl=str(folder / "results.jsonl"),
            show_progress=False,
            max_tokens=max_tokens,
        )
    return [result.content if result.ok else None for result in results]


async def litlm(
    url: str, texts: list[str], concurrency: int, max_tokens: int, folder: Path
) -> list[str | None]:
    """LiteLLM below, by the one kind of provider it takes an address for; results in its cache."""
    os.environ["XDG_CACHE_HOME"] = str(folder)
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network first
    import litlm as peer

    results = await peer.acomplete(
        texts,
        model=f"openrouter/anthropic/{MODEL}",
        api_base=f"{url}/v1",
        api_key=KEY,
        max_tokens=max_tokens,
        max_concurrency=concurrency,
        caching=True,
        show_progress=False,
    )
    return [None if isinstance(result, peer.Failure) else str(result) for result in results]


PEERS = {
    "async-batch-llm": partial(async_batch_llm, streams=True),
    "async-batch-llm, whole": partial(async_batch_llm, streams=False),
    "flexllm": flexllm,
    "litlm": litlm,
}


def main() -> None:
    peer, url, jobs, length, concurrency, max_tokens, folder = sys.argv[1:]
    texts = prompts(int(jobs), int(length))
    run = PEERS[peer](url, texts, int(concurrency), int(max_tokens), Path(folder))
    found = asyncio.run(run)
    Path(folder, "result.json").write_text(json.dumps(dict(enumerate(found))))


if __name__ == "__main__":
    main()
