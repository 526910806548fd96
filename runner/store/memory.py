"""What the API has shown of models, kept so that it need be asked once and not once a job."""

from __future__ import annotations

from sqlalchemy import Connection, Select, select

from runner.jobs.traits import PrefillAnswer
from runner.store.portable import insert_into
from runner.store.schema import model_memory


def remember(
    connection: Connection, endpoint: str, model: str, prefill: PrefillAnswer, now_ms: int
) -> None:
    values = {"prefill": prefill, "learned_ms": now_ms}
    connection.execute(
        insert_into(connection, model_memory)
        .values(endpoint=endpoint, model=model, **values)
        .on_conflict_do_update(index_elements=["endpoint", "model"], set_=values)
    )


def recalled(endpoint: str, model: str) -> Select[tuple[str]]:
    return select(model_memory.c.prefill).where(
        model_memory.c.endpoint == endpoint, model_memory.c.model == model
    )
