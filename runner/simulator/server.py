"""The HTTP face: routes, credentials, headers, and what happens to a request in which order."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from random import Random
from typing import Any

from aiohttp import web

from runner.simulator import wire
from runner.simulator.admission import Admission
from runner.simulator.behaviours import BehaviourPlan, lead
from runner.simulator.books import Bill, Books
from runner.simulator.cache import PromptCache
from runner.simulator.clock import Clock
from runner.simulator.control import changed
from runner.simulator.documents import Document, Library
from runner.simulator.faults import Fault, FaultKind, FaultPlan
from runner.simulator.generate import answer
from runner.simulator.limits import RateLimits
from runner.simulator.models import MODELS, Model, find_model, is_local
from runner.simulator.options import SimulatorOptions
from runner.simulator.own_door import OwnDoor
from runner.simulator.problems import ApiProblem, invalid
from runner.simulator.request import Request
from runner.simulator.stream import Call, Gate, Stream, StreamOver, hang_up
from runner.simulator.validate import check_version, parse_body, read_request

_MAX_BODY_BYTES = 32 * 1024 * 1024
_REQUEST_ID = web.RequestKey("request_id", str)
_RATE_CLASS = web.RequestKey("rate_class", str)
_ORGANIZATION = "00000000-0000-4000-8000-000000000000"

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers requests as the Messages API would."""

    def __init__(self, options: SimulatorOptions) -> None:
        self.books = Books(bills=deque(maxlen=options.bills_kept))
        self.gates: list[Gate] = []
        self.library = Library(options.seed, options.document_tokens)
        self._options = options
        self._faults = FaultPlan(options.faults, options.fault_script)
        self._behaviours = BehaviourPlan(options.behaviours)
        self._cache = PromptCache()
        self._clock = Clock(options.time_factor)
        self._admission = Admission(options, self._clock, self.books)
        self._marker_faults_spent: set[str] = set()
        self._count = 0
        self._messages_count = 0

    def app(self) -> web.Application:
        """The application with its routes."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[self._errors])
        app.add_routes(
            [
                web.post("/v1/messages", self._messages),
                web.post("/v1/messages/count_tokens", self._count_tokens),
                web.get("/v1/models", self._list_models),
                web.get("/v1/models/{id}", self._get_model),
                *OwnDoor(self.books, self.change).routes(),
            ]
        )
        return app

    def change(self, changes: Mapping[str, Any]) -> SimulatorOptions:
        """Go on with other options; a stream that is open keeps the speed it began with.

        Returns:
            All options that hold then.

        Raises:
            ValueError: one of them may not change, or cannot be that.
        """
        options = changed(self._options, changes)
        self._options = options
        self._faults = FaultPlan(options.faults, options.fault_script)
        self._behaviours = BehaviourPlan(options.behaviours)
        self._admission.change(options, overloaded="overloaded_s" in changes)
        return options

    @web.middleware
    async def _errors(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Give every answer its request id, and every error the API's body."""
        self._count += 1
        request[_REQUEST_ID] = request_id = self._name("req", self._count)
        try:
            return await handler(request)
        except ApiProblem as error:
            problem = error
        except web.HTTPRequestEntityTooLarge:
            problem = ApiProblem(
                413, "request_too_large", "Request exceeds the maximum allowed number of bytes."
            )
        except web.HTTPException as error:
            kind = "not_found_error" if error.status == 404 else "invalid_request_error"
            problem = ApiProblem(error.status, kind, error.reason)
        if request.path.startswith("/v1/"):
            self.books.answered(problem.status)
        return web.Response(
            status=problem.status,
            body=problem.body(request_id),
            content_type="application/json" if problem.html is None else "text/html",
            headers=self._headers(request_id)
            | dict(problem.headers)
            | self._admission.headers_of(problem, request.get(_RATE_CLASS)),
        )

    async def _messages(self, http: web.Request) -> web.StreamResponse:
        arrived_s = self._clock.now_s()
        self.books.asked("messages")
        self._messages_count += 1
        random = Random(f"{self._options.seed}:{self._messages_count}")  # noqa: S311 (no secret)
        fault = self._faults.draw(self._messages_count, random)
        raw = await http.read()
        if fault is not None and fault.is_answer:
            self._arrived(http, _rate_class(raw), arrived_s)
            raise self._struck(fault)
        self._admission.check_overload()
        self._check_key(http)
        version = check_version(http.headers.get("anthropic-version"))
        restarts = self._options.prefill_restarts
        request = read_request(parse_body(raw), version, prefill_restarts=restarts)
        self._arrived(http, request.model.rate_class, arrived_s)
        self.books.asked_how(stream=request.stream)
        document = self.library.document(request)
        fault = self._marker_fault(document) or fault
        if fault is not None and fault.is_answer:
            raise self._struck(fault)
        if fault is not None and not fault.fits(stream=request.stream):
            fault = None
        if fault is not None:
            self.books.struck(fault.kind)
            if fault.kind is FaultKind.SLOW_START:
                default_s = self._options.slow_start_s
                await self._clock.sleep(default_s if fault.number is None else fault.number)
        call, limits = self._begin(request, document, http[_REQUEST_ID], random, fault)
        headers = self._headers(call.request_id) | limits.headers(self._clock.now_s())
        if request.stream:
            return await self._stream(http, call, limits, headers)
        return await self._whole(http, call, limits, headers)

    def _begin(
        self,
        request: Request,
        document: Document,
        request_id: str,
        random: Random,
        fault: Fault | None,
    ) -> tuple[Call, RateLimits]:
        """Bill the input, plan the answer, enter both in the books."""
        now_s = self._clock.now_s()
        tokens = document.input_tokens(request)
        usage = self._cache.bill(request.model, request.blocks, tokens, request.extra_tokens, now_s)
        model = request.model
        window = self._window(model)
        if usage.total_tokens > window:
            raise invalid(f"prompt is too long: {usage.total_tokens} tokens > {window} maximum")
        limits = self._admission.admit(model.rate_class, usage.input_tokens + usage.creation_tokens)
        self._admission.spent(usage.total_tokens)
        self._cache.keep(usage, now_s)
        # Of its own, so that the faults of a seed stay where they are.
        moods = Random(f"{self._options.seed}:behaviour:{self._messages_count}")  # noqa: S311
        try:
            behaviour = self._behaviours.draw(request, document.markers.behaviour, moods)
        except ValueError as error:
            raise invalid(f"simulator: no such behaviour in the prompt's mark: {error}") from error
        planned = answer(
            request,
            document,
            document.markers,
            room_tokens=window - usage.total_tokens,
            tear_characters=self._options.tear_characters,
            behaviour=behaviour,
            lead=lead(behaviour, request, moods) if request.asking_blocks else "",
        )
        prompt = self.books.begun(document, request.prefill, usage)
        message_id = self._name("msg", self._count)
        call = Call(
            request, planned, usage, prompt, request_id, message_id, fault, random, _wall_ms()
        )
        return call, limits

    def _closed(
        self, call: Call, output_tokens: int, stop_reason: str | None, *, disconnected: bool
    ) -> None:
        self._admission.spent(output_tokens)
        usage = call.usage
        bill = Bill(
            request_id=call.request_id,
            model=call.request.model_name,
            prompt=call.prompt.digest,
            input_tokens=usage.input_tokens,
            cache_creation_5m_tokens=usage.creation_5m_tokens,
            cache_creation_1h_tokens=usage.creation_1h_tokens,
            cache_read_tokens=usage.read_tokens,
            output_tokens=output_tokens,
            stop_reason=stop_reason,
            began_ms=call.began_ms,
            ended_ms=_wall_ms(),
        )
        self.books.closed(bill, disconnected=disconnected)

    def _arrived(self, http: web.Request, rate_class: str | None, arrived_s: float) -> None:
        if rate_class is not None:
            http[_RATE_CLASS] = rate_class
            self._admission.arrived(rate_class, arrived_s)

    async def _stream(
        self, http: web.Request, call: Call, limits: RateLimits, headers: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers | {"cache-control": "no-cache"})
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        self.books.answered(200)
        self.books.opened()
        stop_reason, disconnected, stream = None, True, None
        try:
            await response.prepare(http)
            stream = Stream(
                call, http, response, self._options, self.books, limits, self.gates, self._clock
            )
            await stream.run()
            stop_reason, disconnected = call.answer.stop_reason, False
        except StreamOver:
            disconnected = False
        except ConnectionError:
            pass  # the client went; the books say so
        finally:
            written = stream.tokens if stream is not None else 0
            billed = call.answer.output_tokens if stop_reason else written
            self._closed(call, billed, stop_reason, disconnected=disconnected)
        return response

    async def _whole(
        self, http: web.Request, call: Call, limits: RateLimits, headers: dict[str, str]
    ) -> web.StreamResponse:
        """An answer in one piece; a drop of it comes when all was written."""
        kind = call.fault.kind if call.fault else None
        speed, done = self._options.tokens_per_second, 0
        self.books.opened()
        stop_reason, disconnected, texts = None, True, []
        try:
            if kind is FaultKind.STALL:
                await asyncio.Event().wait()  # ends when the client goes
            await self._clock.sleep(self._options.first_token_s)
            started_s = self._clock.now_s()
            for piece in call.answer.pieces(self._options.tokens_per_event):
                due_s = started_s + done / speed if speed else 0.0
                if due_s > self._clock.now_s():
                    await self._clock.sleep(due_s - self._clock.now_s())
                texts.append(piece.text)
                done += piece.tokens
                document = call.answer.document
                apart = piece.tokens if piece.apart else 0
                self.books.generated(
                    call.prompt, document, piece.start, piece.end, piece.tokens, apart
                )
            limits.spend_output(done, self._clock.now_s())
            stop_reason, disconnected = call.answer.stop_reason, False
        finally:
            billed = call.answer.output_tokens if stop_reason else done
            self._closed(call, billed, stop_reason, disconnected=disconnected)
        self.books.answered(200)
        if kind in {FaultKind.DROP, FaultKind.DROP_BYTE, FaultKind.RESET}:
            hang_up(http, reset=kind is FaultKind.RESET)
        text = "".join(texts)
        body = wire.whole_message(call.request, call.message_id, call.answer, text, call.usage)
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def _count_tokens(self, http: web.Request) -> web.StreamResponse:
        self.books.asked("count_tokens")
        raw = await http.read()
        self._check_key(http)
        version = check_version(http.headers.get("anthropic-version"))
        request = read_request(parse_body(raw), version, counting=True)
        document = self.library.document(request)
        tokens = document.input_tokens(request)
        self.books.answered(200)
        return self._json(http, {"input_tokens": request.extra_tokens + sum(tokens)})

    async def _list_models(self, http: web.Request) -> web.StreamResponse:
        self.books.asked("models")
        self._check_key(http)
        names = list(MODELS)
        after = http.query.get("after_id")
        if after in names:
            names = names[names.index(after) + 1 :]
        limit = http.query.get("limit", "20")
        if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
            raise invalid("limit: Input should be between 1 and 1000")
        shown = names[: int(limit)]
        self.books.answered(200)
        return self._json(
            http,
            {
                "data": [self._info(MODELS[name]) for name in shown],
                "has_more": len(shown) < len(names),
                "first_id": shown[0] if shown else None,
                "last_id": shown[-1] if shown else None,
            },
        )

    async def _get_model(self, http: web.Request) -> web.StreamResponse:
        self.books.asked("models")
        self._check_key(http)
        name = http.match_info["id"]
        model = None if is_local(name) else find_model(name)
        if model is None:
            raise ApiProblem(404, "not_found_error", f"model: {name}")
        self.books.answered(200)
        return self._json(http, self._info(model))

    def _window(self, model: Model) -> int:
        """Tokens of the model's context window, as small as the options make it."""
        least = self._options.context_window_tokens or model.context_window_tokens
        return min(least, model.context_window_tokens)

    def _info(self, model: Model) -> dict[str, Any]:
        return model.info() | {"max_input_tokens": self._window(model)}

    def _struck(self, fault: Fault) -> ApiProblem:
        self.books.struck(fault.kind)
        return fault.problem(self._options.retry_after_s)

    def _marker_fault(self, document: Document) -> Fault | None:
        """The fault that the prompt itself asks for."""
        word = document.markers.always
        if word is None and document.digest not in self._marker_faults_spent:
            word = document.markers.fault
            self._marker_faults_spent.add(document.digest)
        if word is None:
            return None
        try:
            return Fault.parse(word)
        except ValueError as error:
            raise invalid(f"simulator: no such fault in the prompt's marker: {word}") from error

    def _check_key(self, http: web.Request) -> None:
        expected = self._options.api_key
        if expected is None:
            return
        given = http.headers.get("x-api-key")
        authorization = http.headers.get("authorization", "")
        if given is None and authorization.lower().startswith("bearer "):
            given = authorization[len("bearer ") :]
        if given is None:
            raise ApiProblem(401, "authentication_error", "x-api-key header is required")
        if not hmac.compare_digest(given.encode(), expected.encode()):
            raise ApiProblem(401, "authentication_error", "invalid x-api-key")

    def _name(self, kind: str, number: int) -> str:
        seed = f"{self._options.seed}:{kind}:{number}".encode()
        return f"{kind}_01{blake2b(seed, digest_size=11).hexdigest()}"

    def _headers(self, request_id: str) -> dict[str, str]:
        return {"request-id": request_id, "anthropic-organization-id": _ORGANIZATION}

    def _json(self, http: web.Request, value: dict[str, Any]) -> web.Response:
        return web.Response(
            body=json.dumps(value, ensure_ascii=False).encode(),
            content_type="application/json",
            headers=self._headers(http[_REQUEST_ID]),
        )


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _rate_class(raw: bytes) -> str | None:
    """Whose limit a request counts against that is refused before it is looked at."""
    try:
        body = json.loads(raw)
        model = find_model(str(body["model"]))
    except (ValueError, KeyError, TypeError):
        return None
    return None if model is None else model.rate_class
