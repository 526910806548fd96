"""A running simulator."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from aiohttp import web

from runner.errors import RunnerError
from runner.simulator.books import Books
from runner.simulator.options import SimulatorOptions
from runner.simulator.server import Server
from runner.simulator.stream import Gate
from runner.simulator.validate import read_request

_HOST = "127.0.0.1"
_BACKLOG = 2048
# Streams that are held or stalled must not keep anybody waiting at the end.
_SHUTDOWN_S = 0.05
_VERSION = "2023-06-01"


class SimulatorError(RunnerError):
    """The simulator cannot run with these options: a port in use, an unknown fault."""

    exit_status = 2


class Simulator:
    """A Messages API on the loopback interface, in the running event loop.

    Use it as an async context manager: it listens from its beginning to its end.

    Args:
        options: how it behaves.

    Raises:
        SimulatorError: the options name a fault that is none, or the port is taken.
    """

    def __init__(self, options: SimulatorOptions | None = None) -> None:
        self._options = options or SimulatorOptions()
        try:
            self._server = Server(self._options)
        except ValueError as error:
            raise SimulatorError(
                f"The simulator's options: {error}. See docs/simulator.md for the names."
            ) from error
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Simulator:
        runner = web.AppRunner(
            self._server.app(),
            access_log=None,
            # A client that goes away ends its stream at once: nothing is generated for nobody.
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN_S,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, _HOST, self._options.port, backlog=_BACKLOG).start()
        except OSError as error:
            await runner.cleanup()
            raise SimulatorError(
                f"The simulator cannot listen on port {self._options.port}: {error.strerror}. "
                "Choose another with --port, or 0 for a free one."
            ) from error
        self._runner = runner
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def base_url(self) -> str:
        """Where it listens, as the SDK wants it."""
        if self._runner is None:
            raise SimulatorError("The simulator is not running: use `async with`.")
        return f"http://{_HOST}:{self._runner.addresses[0][1]}"

    @property
    def books(self) -> Books:
        """What it has seen and done; `await books.wait_for(...)` waits for a state of them."""
        return self._server.books

    def true_document(self, body: Mapping[str, Any]) -> str:
        """What one endless answer to this request body would be, from the document's beginning.

        Args:
            body: as for `POST /v1/messages`; the text so far and a request to go on with it do
                not matter.

        Raises:
            ApiProblem: the real API would refuse the body.
        """
        return self._server.library.document(read_request(body, _VERSION)).text

    def change(self, **changes: Any) -> None:
        """Go on with other options: those that `POST /control` takes, by the same names.

        Raises:
            SimulatorError: one of them may not change while it runs, or cannot be that.
        """
        try:
            self._server.change(changes)
        except ValueError as error:
            raise SimulatorError(f"The simulator's options: {error}") from error

    def hold(self, at_character: int, *, prompt_contains: str = "") -> Gate:
        """Hold streams before this character of their document, until the gate is released."""
        gate = Gate(at_character, prompt_contains)
        self._server.gates.append(gate)
        return gate
