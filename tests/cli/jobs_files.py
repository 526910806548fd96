"""Job files for tests of the command line."""

from __future__ import annotations

from pathlib import Path


def write(
    folder: Path,
    *,
    name: str = "jobs.yaml",
    batch: str = "animals",
    count: int = 2,
    max_tokens: int = 400,
    extra: str = "",
    prompt: str = "Write about animal",
) -> Path:
    """A job file of `count` jobs `job-0`, `job-1`, … on a model that takes prefill."""
    path = folder / name
    path.write_text(
        f"version: 1\nbatch: {batch}\n"
        f"defaults: {{model: claude-haiku-4-5, max_tokens: {max_tokens}{extra}}}\njobs:\n"
        + "".join(f"  - {{id: job-{n}, prompt: {prompt} {n}.}}\n" for n in range(count))
    )
    return path
