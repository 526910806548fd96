"""Which calls share a limit: those with one credential, to one endpoint and class of models."""

from __future__ import annotations

import re
from hashlib import blake2b

_POOLED = re.compile(r"claude-(?:(opus|sonnet)-4\b|4-\d+-(opus|sonnet)\b)")
_DATE = re.compile(r"-(?:latest|20\d{6})$")


def rate_class(model: str) -> str:
    """The class of models whose limits `model` shares.

    Opus 4.x have one limit together, and so have Sonnet 4.x; each other model has its own, whatever
    its date. Source: Messages API documentation, rate limits.
    """
    pooled = _POOLED.match(model)
    if pooled:
        return f"claude-{pooled[1] or pooled[2]}-4.x"
    return _DATE.sub("", model)


def limit_key(credential: str, endpoint: str, rate_class: str) -> str:
    """What a limit is known by in the database: 8 bytes in hexadecimal.

    Args:
        credential: a fingerprint, never the key.
    """
    return _digest("limit", credential, endpoint, rate_class)


def batch_limit_key(batch_key: int) -> str:
    """What the limit is known by that a job file sets for its batch."""
    return _digest("batch", str(batch_key))


def fingerprint(secrets: tuple[str, ...]) -> str:
    """What tells one credential from another and gives nothing of it away."""
    digest = blake2b(digest_size=8, key=b"runner credential")
    for secret in secrets:
        digest.update(f"{len(secret)}:{secret}".encode(errors="surrogatepass"))
    return digest.hexdigest()


def _digest(*parts: str) -> str:
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode(errors="surrogatepass"))
    return digest.hexdigest()
