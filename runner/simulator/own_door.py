"""The simulator's own door, no part of the Messages API: its books, and changes while it runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from runner.simulator.books import Books
from runner.simulator.control import CHANGEABLE
from runner.simulator.options import SimulatorOptions
from runner.simulator.problems import invalid
from runner.simulator.validate import parse_body


class OwnDoor:
    """Answers what only a simulator is asked.

    Args:
        change: goes on with other options, and gives all that hold then; raises ValueError where
            one of them may not change.
    """

    def __init__(
        self, books: Books, change: Callable[[Mapping[str, Any]], SimulatorOptions]
    ) -> None:
        self._books = books
        self._change = change

    def routes(self) -> list[web.RouteDef]:
        """Its paths."""
        return [
            web.get("/books", self._tell),
            web.get("/books/bills", self._bills),
            web.post("/books/reset", self._reset),
            web.post("/control", self._control),
        ]

    async def _tell(self, http: web.Request) -> web.Response:
        detail = http.query.get("detail", "0") not in {"", "0", "false"}
        return _json(self._books.as_dict(detail=detail))

    async def _bills(self, http: web.Request) -> web.Response:
        first = http.query.get("from", "0")
        if not (first.isascii() and first.isdecimal()):
            raise invalid("from: the number of the first bill is wanted, from 0")
        return _json(self._books.bills_from(int(first)))

    async def _reset(self, _http: web.Request) -> web.Response:
        self._books.reset()
        return _json(self._books.as_dict())

    async def _control(self, http: web.Request) -> web.Response:
        # Its own content type, so that no page in a browser can send it unasked.
        if http.content_type != "application/json":
            raise invalid("the changes are wanted as application/json")
        try:
            options = self._change(parse_body(await http.read()))
        except ValueError as error:
            raise invalid(str(error)) from error
        return _json({name: getattr(options, name) for name in CHANGEABLE})


def _json(value: Mapping[str, Any]) -> web.Response:
    body = json.dumps(value, ensure_ascii=False).encode()
    return web.Response(body=body, content_type="application/json")
