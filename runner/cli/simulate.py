"""`runner simulate`: serve the simulated Messages API."""

from __future__ import annotations

import asyncio
import json
import signal

import click

from runner.simulator import FaultKind, Simulator, SimulatorOptions
from runner.simulator.behaviours import Behaviour
from runner.simulator.faults import Fault

_FAULTS = ", ".join(FaultKind)


def _pairs(
    _context: click.Context, option: click.Parameter, words: tuple[str, ...]
) -> dict[str, str]:
    """Read `NAME=VALUE` words."""
    pairs = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator:
            raise click.BadParameter(f"{word!r} lacks a `=`.", param=option)
        pairs[name] = value
    return pairs


def _probabilities(
    context: click.Context, option: click.Parameter, words: tuple[str, ...]
) -> dict[str, float]:
    found = {}
    for name, value in _pairs(context, option, words).items():
        _check_fault(name, option)
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = -1.0
        if not 0 <= found[name] <= 1:
            raise click.BadParameter("a probability is a number from 0 to 1.", param=option)
    return found


def _behaviours(
    _context: click.Context, option: click.Parameter, words: tuple[str, ...]
) -> dict[str, float]:
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in list(Behaviour):
            message = f"{name!r} is no behaviour. Known: {', '.join(Behaviour)}."
            raise click.BadParameter(message, param=option)
        try:
            found[name] = float(value or 1)
        except ValueError:
            found[name] = -1.0
        if not 0 <= found[name] <= 1:
            raise click.BadParameter("a probability is a number from 0 to 1.", param=option)
    return found


def _script(
    context: click.Context, option: click.Parameter, words: tuple[str, ...]
) -> dict[int, str]:
    found = {}
    for name, value in _pairs(context, option, words).items():
        if not name.isdecimal():
            raise click.BadParameter("a request is named by its number.", param=option)
        _check_fault(value, option)
        found[int(name)] = value
    return found


def _check_fault(word: str, option: click.Parameter) -> None:
    try:
        Fault.parse(word)
    except ValueError as error:
        message = f"{word!r} is no fault. Kinds: {_FAULTS}."
        raise click.BadParameter(message, param=option) from error


def _least_and_most(
    _context: click.Context, option: click.Parameter, value: tuple[int, int]
) -> tuple[int, int]:
    if value[0] > value[1]:
        raise click.BadParameter("the least comes first.", param=option)
    return value


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port; 0 takes a free one.")
@click.option("--seed", type=int, default=0, help="Other documents, other faults.")
@click.option("--require-key", metavar="KEY", help="Accept this key only (default: any).")
@click.option(
    "--tokens-per-second",
    type=click.FloatRange(0),
    default=0.0,
    help="Speed of each stream; 0: as fast as possible.",
)
@click.option(
    "--first-token-seconds", type=click.FloatRange(0), default=0.0, help="Time to the first token."
)
@click.option(
    "--tokens-per-event", type=click.IntRange(1), default=1, help="Tokens in a text delta."
)
@click.option(
    "--document-tokens",
    type=(click.IntRange(1), click.IntRange(1)),
    metavar="LEAST MOST",
    callback=_least_and_most,
    default=(600, 3000),
    show_default=True,
    help="Length where the prompt wishes for none.",
)
@click.option("--tear-characters", is_flag=True, help="Let cuts fall within a character.")
@click.option(
    "--context-window",
    type=click.IntRange(0),
    default=0,
    help="Make context windows this small (tokens).",
)
@click.option("--rpm", type=click.IntRange(0), default=0, help="Requests a minute; 0: no limit.")
@click.option("--itpm", type=click.IntRange(0), default=0, help="Input tokens a minute.")
@click.option("--otpm", type=click.IntRange(0), default=0, help="Output tokens a minute.")
@click.option(
    "--burst-seconds",
    type=click.FloatRange(1, 60),
    default=60.0,
    help="Seconds' worth of a limit that may be used at once.",
)
@click.option(
    "--ramp-rpm",
    type=click.IntRange(0),
    default=0,
    help="By how many requests a minute the rate may grow within a minute; 0: no limit.",
)
@click.option(
    "--spend-cap-tokens",
    type=click.IntRange(0),
    default=0,
    help="Refuse all, as at a monthly cap, once so many tokens were billed.",
)
@click.option(
    "--own-limit-tokens",
    type=click.IntRange(0),
    default=0,
    help="The same, as at a limit that the owner set.",
)
@click.option(
    "--overloaded-seconds",
    type=click.FloatRange(0),
    default=0.0,
    help="Answer 529 for so long from the first request on.",
)
@click.option(
    "--time-factor",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    help="Let time pass so many times faster here: speeds, limits, waits.",
)
@click.option(
    "--bills",
    "bills_kept",
    type=click.IntRange(0),
    default=SimulatorOptions.bills_kept,
    show_default=True,
    help="How many of the latest bills to keep.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND=PROBABILITY",
    callback=_probabilities,
    help=f"A fault by chance; may be repeated. Kinds: {_FAULTS}.",
)
@click.option(
    "--fault-at",
    "script",
    multiple=True,
    metavar="N=KIND[:NUMBER]",
    callback=_script,
    help="A fault for the N-th request for a message.",
)
@click.option(
    "--retry-after-seconds", type=click.IntRange(0), default=1, help="What 429 faults say."
)
@click.option(
    "--slow-start-seconds", type=click.FloatRange(0), default=5.0, help="How slow a slow start is."
)
@click.option(
    "--behaviour",
    "behaviours",
    multiple=True,
    metavar="NAME[=PROBABILITY]",
    callback=_behaviours,
    help="How models answer when asked to go on by a user turn; may be repeated, the rest obeys. "
    f"Names: {', '.join(Behaviour)}.",
)
@click.option(
    "--prefill-restarts", is_flag=True, help="Let models named local-… begin afresh on a prefill."
)
def simulate(
    port: int,
    seed: int,
    require_key: str | None,
    tokens_per_second: float,
    first_token_seconds: float,
    tokens_per_event: int,
    document_tokens: tuple[int, int],
    tear_characters: bool,
    context_window: int,
    rpm: int,
    itpm: int,
    otpm: int,
    burst_seconds: float,
    ramp_rpm: int,
    spend_cap_tokens: int,
    own_limit_tokens: int,
    overloaded_seconds: float,
    time_factor: float,
    bills_kept: int,
    faults: dict[str, float],
    script: dict[int, str],
    retry_after_seconds: int,
    slow_start_seconds: float,
    behaviours: dict[str, float],
    prefill_restarts: bool,
) -> None:
    """Serve a simulated Messages API on this machine, until Ctrl-C.

    Prints its address as soon as it listens; `GET /books` tells what it has done, and
    `POST /control` changes limits, faults and caps while it runs (docs/simulator.md).

    \b
    Example:
      runner simulate --port 8123 --tokens-per-second 50
      ANTHROPIC_BASE_URL=http://127.0.0.1:8123 runner run jobs.yaml
    """
    options = SimulatorOptions(
        port=port,
        seed=seed,
        api_key=require_key,
        tokens_per_second=tokens_per_second,
        first_token_s=first_token_seconds,
        tokens_per_event=tokens_per_event,
        document_tokens=document_tokens,
        tear_characters=tear_characters,
        context_window_tokens=context_window,
        requests_per_minute=rpm,
        input_tokens_per_minute=itpm,
        output_tokens_per_minute=otpm,
        burst_s=burst_seconds,
        ramp_requests_per_minute=ramp_rpm,
        spend_cap_tokens=spend_cap_tokens,
        own_limit_tokens=own_limit_tokens,
        overloaded_s=overloaded_seconds,
        time_factor=time_factor,
        bills_kept=bills_kept,
        faults=faults,
        fault_script=script,
        retry_after_s=retry_after_seconds,
        slow_start_s=slow_start_seconds,
        behaviours=behaviours,
        prefill_restarts=prefill_restarts,
    )
    asyncio.run(_serve(options))


async def _serve(options: SimulatorOptions) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Simulator(options) as simulator:
        click.echo(simulator.base_url)
        await stop.wait()
        click.echo(json.dumps(simulator.books.as_dict(), ensure_ascii=False), err=True)
