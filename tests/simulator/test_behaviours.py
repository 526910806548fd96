"""The ways in which models answer, by name, and the books that stay exact through all of them."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from runner.simulator import Simulator, SimulatorError, SimulatorOptions
from runner.simulator.behaviours import COMMENT, OPENINGS, Behaviour, retyped

pytestmark = pytest.mark.anyio

MODEL = "claude-opus-5-5"


def body(prompt: str, given: str = "", asking: str = "", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    if given:
        messages.append({"role": "assistant", "content": given})
    if asking:
        messages.append({"role": "user", "content": asking})
    return {"model": MODEL, "max_tokens": 4000, "messages": messages, **fields}


class Asked:
    """One prompt, written up to its middle and then asked to go on."""

    def __init__(self, simulator: Simulator, client: Any, mark: str, **fields: Any) -> None:
        prompt = f"Write about 200 words on bees. [[simulate: {mark}]]"
        self.text = simulator.true_document(body(prompt))
        at = self.text.index(" ", len(self.text) // 2)
        self.given, self.rest = self.text[:at].rstrip(), self.text[at:]
        self.anchor = self.given[-60:].lstrip()
        asking = f"Repeat the last words, then go on: <last_words>{self.anchor}</last_words>"
        self._client = client
        self._body = body(prompt, self.given, asking, **fields)

    async def reply(self) -> Any:
        return await self._client.messages.create(**self._body)


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


async def reply_of(client_of, mark: str, **fields: Any) -> tuple[Asked, Any, Simulator]:
    async with Simulator() as simulator:
        asked = Asked(simulator, client_of(simulator), mark, **fields)
        return asked, await asked.reply(), simulator


@pytest.mark.parametrize("mark", ["", "behaviour=obeys"])
async def test_obeys(client_of, mark):
    asked, reply, simulator = await reply_of(client_of, mark)
    assert text_of(reply) == asked.anchor + asked.text[len(asked.given) :]
    assert reply.stop_reason == "end_turn"
    books = simulator.books
    assert books.anchor_tokens > 5
    assert (books.tokens_generated_twice, books.divergences, books.restarts) == (0, 0, 0)
    assert books.output_tokens_billed == books.tokens_generated == reply.usage.output_tokens


async def test_opens(client_of):
    asked, reply, _ = await reply_of(client_of, "behaviour=opens")
    assert text_of(reply).startswith(OPENINGS)
    assert text_of(reply).endswith(asked.anchor + asked.text[len(asked.given) :])


async def test_repeats(client_of):
    asked, reply, simulator = await reply_of(client_of, "behaviour=repeats")
    repeated = text_of(reply).removesuffix(asked.text[len(asked.given) :])
    assert asked.given.endswith(repeated)
    assert len(repeated) > len(asked.anchor) + 50
    assert simulator.books.tokens_generated_twice == 0


async def test_retypes(client_of):
    asked, reply, _ = await reply_of(client_of, "behaviour=retypes")
    assert text_of(reply) == retyped(asked.anchor) + asked.text[len(asked.given) :]
    assert retyped(asked.anchor) != asked.anchor


async def test_fences(client_of):
    asked, reply, _ = await reply_of(client_of, "behaviour=fences")
    assert text_of(reply).startswith("```\n" + asked.anchor)


async def test_restarts(client_of):
    asked, reply, simulator = await reply_of(client_of, "behaviour=restarts")
    assert text_of(reply) == asked.text
    assert simulator.books.anchor_tokens == 0


async def test_comments(client_of):
    _, reply, simulator = await reply_of(client_of, "behaviour=comments")
    assert (text_of(reply), reply.stop_reason) == (COMMENT, "end_turn")
    assert simulator.books.anchor_tokens == simulator.books.tokens_generated


async def test_skips(client_of):
    asked, reply, _ = await reply_of(client_of, "behaviour=skips")
    assert text_of(reply) == asked.text[len(asked.given) :].lstrip()


async def test_stops_early(client_of):
    asked, reply, _ = await reply_of(client_of, "behaviour=stops_early")
    rest = text_of(reply).removeprefix(asked.anchor)
    assert reply.stop_reason == "end_turn"
    assert 0 < len(rest) < len(asked.rest)
    assert asked.text.startswith(asked.given + rest)


async def test_circles(client_of):
    _, reply, _ = await reply_of(client_of, "behaviour=circles")
    assert reply.stop_reason == "max_tokens"
    assert reply.usage.output_tokens == 4000
    assert text_of(reply).count("And so it went on") > 50


async def test_thinks_only(client_of):
    _, reply, simulator = await reply_of(client_of, "behaviour=thinks_only", max_tokens=50)
    assert [block.type for block in reply.content] == ["thinking"]
    assert (reply.stop_reason, reply.usage.output_tokens) == ("max_tokens", 50)
    assert simulator.books.tokens_generated == 0


async def test_thinking_takes_its_share_of_the_tokens(client_of):
    asked, reply, _ = await reply_of(client_of, "thinks=30", max_tokens=40)
    assert text_of(reply)
    assert asked.anchor.startswith(text_of(reply))
    assert reply.usage.output_tokens == 40
    _, reply, _ = await reply_of(client_of, "thinks=30", max_tokens=20)
    assert text_of(reply) == ""


def test_every_behaviour_has_its_test_by_name():
    assert [name for name in Behaviour if f"test_{name}" not in globals()] == []


async def test_behaviours_are_mixed_by_the_seed(client_of):
    async def drawn(seed: int) -> list[str]:
        options = SimulatorOptions(seed=seed, behaviours={"comments": 0.3, "skips": 0.3})
        async with Simulator(options) as simulator:
            asked = Asked(simulator, client_of(simulator), "")
            return [text_of(await asked.reply()) for _ in range(20)]

    first = await drawn(1)
    assert len(set(first)) == 3
    assert first == await drawn(1)


@pytest.mark.parametrize("behaviour", Behaviour)
@pytest.mark.parametrize("max_tokens", [1, 7, 30])
async def test_no_answer_is_longer_than_it_may_be(client_of, behaviour, max_tokens):
    mark = f"behaviour={behaviour}"
    _, reply, simulator = await reply_of(client_of, mark, max_tokens=max_tokens)
    assert reply.usage.output_tokens <= max_tokens
    assert simulator.books.output_tokens_billed == reply.usage.output_tokens


async def test_a_turn_of_an_ordinary_conversation_makes_another_prompt(client_of):
    async with Simulator() as simulator:
        other = simulator.true_document(body("Hello", "Hello to you.", "Write about wasps."))
        assert other != simulator.true_document(body("Hello"))


async def test_a_server_may_begin_afresh_after_a_prefill(client_of):
    for options, model in [
        (SimulatorOptions(prefill_restarts=True), "local-any"),
        (SimulatorOptions(), "local-restarts"),
    ]:
        async with Simulator(options) as simulator:
            request = body("Write about 100 words.", model=model)
            text = simulator.true_document(request)
            client = client_of(simulator)
            request["messages"].append({"role": "assistant", "content": text[:40].rstrip()})
            assert text_of(await client.messages.create(**request)) == text


@pytest.mark.parametrize("model", ["claude-opus-4-6", "claude-haiku-5-5", "claude-saga-7"])
async def test_current_and_unknown_models_take_no_prefill(client_of, model):
    async with Simulator() as simulator:
        client = client_of(simulator)
        with pytest.raises(anthropic.BadRequestError, match="does not support assistant message"):
            await client.messages.create(**body("x", "The", model=model))


async def test_unknown_behaviours_are_refused(client_of):
    with pytest.raises(SimulatorError, match="sulks"):
        Simulator(SimulatorOptions(behaviours={"sulks": 1}))
    with pytest.raises(anthropic.BadRequestError, match="no such behaviour"):
        await reply_of(client_of, "behaviour=sulks")
