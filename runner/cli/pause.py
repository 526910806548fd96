"""`runner pause` and `runner resume`."""

from __future__ import annotations

import click

from runner.cli.common import database_option, message, reading, run_async
from runner.cli.harmless import one_line
from runner.errors import UsageError

batches_argument = click.argument("batches", nargs=-1, required=True, metavar="BATCH...")


@click.command()
@batches_argument
@database_option
@click.option("--reason", default="by the user", metavar="TEXT", help="Why, for whoever looks.")
def pause(batches: tuple[str, ...], database: str, reason: str) -> None:
    """Pause batches: none of their jobs begins a further call.

    Works while a run is going: calls that are open come to their end and are saved, since they are
    paid for; then their jobs go back to the queue. A run that worked on the batch waits for
    `runner resume`; one that is started on a paused batch says so and ends.

    \b
    Example:
      runner pause five-animals --reason "until the budget is settled"
    """
    from runner.store.records import PauseCause

    async def order() -> None:
        from runner.output.batches import known_batches

        async with reading(database) as store:
            for row in await known_batches(store, batches):
                await store.pause(row.key, PauseCause.USER, reason)
                message(one_line(f"{row.name} is paused; `runner resume {row.name}` lets it go on"))

    run_async(order())


@click.command()
@batches_argument
@database_option
@click.option(
    "--copied",
    is_flag=True,
    help="Also a batch that was copied to another database; both then pay for its documents.",
)
def resume(batches: tuple[str, ...], database: str, copied: bool) -> None:
    """Let paused batches go on.

    Whatever paused them: you, a refused key, a budget, a spend cap or the breaker. A run that waits
    for it goes on at once; where none does, `runner run` or `runner work` does the work.

    \b
    Example:
      runner resume five-animals
    """

    from runner.store.records import PauseCause

    async def order() -> None:
        from runner.output.batches import known_batches

        async with reading(database) as store:
            rows = await known_batches(store, batches)
            for row in rows:
                if row.paused is PauseCause.COPY and not copied:
                    raise UsageError(
                        f"{row.name} does not go on here: {row.pause_reason}. If it shall all the "
                        f"same, `runner resume {row.name} --copied`; where both go on, both pay."
                    )
            for row in rows:
                if row.paused is PauseCause.COPY:
                    if not await store.bring_back(row.name):
                        raise UsageError(f"{row.name} does not go on here: {row.pause_reason}.")
                    (now,) = await store.batches([row.name])
                    words = (
                        "goes on" if now.paused is None else f"is paused ({now.paused}) as before"
                    )
                else:
                    words = "goes on" if await store.resume(row.key) else "was not paused"
                message(one_line(f"{row.name} {words}"))
            if not any(worker.alive is not False for worker in await store.workers()):
                message("no process works on this database now: `runner work` starts one")

    run_async(order())
