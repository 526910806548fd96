"""What can be set on a simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SimulatorOptions:
    """How a simulator behaves; the same options and requests give the same answers.

    Args:
        port: 0 takes a free one. It listens on the loopback interface only.
        seed: another seed gives other documents and other faults.
        api_key: the one key that is accepted; None accepts any, and none.
        tokens_per_second: speed of each stream; 0 is as fast as possible.
        first_token_s: seconds from request to first token.
        tokens_per_event: tokens in one text delta.
        document_tokens: least and most tokens of a document whose prompt wishes for no length.
        tear_characters: a cut at `max_tokens` that falls on a character of several bytes leaves
            U+FFFD in its place, as byte-level tokenizers do.
        context_window_tokens: makes every model's context window smaller; 0 leaves them.
        requests_per_minute, input_tokens_per_minute, output_tokens_per_minute: rate limits of each
            class of models; 0 is none.
        burst_s: seconds' worth of a rate limit that may be used at once: 60 for buckets of a
            minute, 1 for limits that are enforced by the second.
        ramp_requests_per_minute: by how much the rate of requests of a class of models may grow
            within a minute (`ramp.Ramp`); 0 is no limit.
        spend_cap_tokens: once so many tokens, input and output, were billed, all is refused as at
            a tier's monthly cap; 0 is none.
        own_limit_tokens: the same, refused as at a limit that the owner set.
        overloaded_s: seconds from its start, or from the change of this option, for which every
            request is answered 529.
        time_factor: how many seconds of the simulator pass in one of its clients': all times here
            are the simulator's, and `retry-after` and the limits in headers the clients'.
        bills_kept: how many of the latest bills the books keep.
        faults: probability for each kind of fault (`faults.FaultKind`) to strike a request.
        fault_script: faults for the n-th `POST /v1/messages`, counted from 1, as `kind` or
            `kind:number` (see `faults.Fault.parse`).
        retry_after_s: what `retry-after` says in a 429 that is a fault.
        slow_start_s: seconds before the headers of a slow start.
        ping_interval_s: seconds between pings while nothing else is sent.
        behaviours: probability for each way of answering (`behaviours.Behaviour`) that is not
            simply to obey.
        prefill_restarts: models behind local servers (`local-…`) begin afresh after a prefill.
    """

    port: int = 0
    seed: int = 0
    api_key: str | None = None
    tokens_per_second: float = 0.0
    first_token_s: float = 0.0
    tokens_per_event: int = 1
    document_tokens: tuple[int, int] = (600, 3000)
    tear_characters: bool = False
    context_window_tokens: int = 0
    requests_per_minute: int = 0
    input_tokens_per_minute: int = 0
    output_tokens_per_minute: int = 0
    burst_s: float = 60.0
    ramp_requests_per_minute: int = 0
    spend_cap_tokens: int = 0
    own_limit_tokens: int = 0
    overloaded_s: float = 0.0
    time_factor: float = 1.0
    bills_kept: int = 50_000
    faults: Mapping[str, float] = field(default_factory=dict)
    fault_script: Mapping[int, str] = field(default_factory=dict)
    retry_after_s: int = 1
    slow_start_s: float = 5.0
    ping_interval_s: float = 10.0
    behaviours: Mapping[str, float] = field(default_factory=dict)
    prefill_restarts: bool = False
