"""As many answers at a time as the engine is given, a short queue in front of them, and 429 beyond it."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from slm_serve.errors import RequestError
from slm_serve.ops.limits import Limits
from slm_serve.ops.metrics import Metrics
from slm_serve.ops.refusal import refuse

_FIRST_GUESS_S = 5.0
_MEMORY = 0.9
_LONGEST_WAIT_S = 60
_FIRST_REFUSAL = 400
_HELD_BYTES = 2**18
"""How much of a waiting request's body is taken in while watching for its client to leave."""


class Gate:
    """Places for work, given out in the order of arrival.

    Args:
        places: Work that runs at a time.
        queue: Work that waits at a time.
        clock: Monotonic time in seconds.
        work: What runs, in the plural, as a refusal names it.
    """

    def __init__(
        self, places: int, queue: int, clock: Callable[[], float] = time.monotonic, work: str = "answers"
    ) -> None:
        self._work = work
        self._places = places
        self._queue = queue
        self._clock = clock
        self._typical_s = _FIRST_GUESS_S
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.running = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def retry_after_s(self) -> int:
        """Return in how many seconds a place may be free: the queue's length at the pace of late, 1 to 60."""
        turns = (self.waiting + 1) / max(1, self._places)
        return min(_LONGEST_WAIT_S, max(1, math.ceil(turns * self._typical_s)))

    async def enter(self) -> float:
        """Wait for a place and take it; :meth:`leave` gives it back, with the time that this returns.

        Raises:
            RequestError: The queue is full (429).
        """
        await self._turn()
        return self._clock()

    def leave(self, entered: float, was_work: bool = True) -> None:
        """Give a place back.

        Args:
            entered: What :meth:`enter` returned.
            was_work: Whether the time counts for the pace; a request that was refused at once does not.
        """
        if was_work:
            self._typical_s = _MEMORY * self._typical_s + (1 - _MEMORY) * (self._clock() - entered)
        self._pass_on()

    async def _turn(self) -> None:
        if self.running < self._places and not self._waiting:
            self.running += 1
            return
        if len(self._waiting) >= self._queue:
            text = f"the server is busy: {self.running} {self._work} are open and {self.waiting} wait."
            raise RequestError(text, None, "rate_limit_exceeded", 429, retry_after_s=self.retry_after_s())
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # the place came in the moment of leaving: it goes on to the next
                self._pass_on()
            else:
                self._waiting.remove(turn)
            raise

    def _pass_on(self) -> None:
        """Hand the place to the next who waits; ``running`` counts it throughout."""
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self.running -= 1


class Admission:
    """Lets requests for work through a gate, and WebSocket sessions up to their number.

    Args:
        app: What does the work.
        limits: Its ``streams``, ``queue`` and ``sessions`` count.
        metrics: Told of the queue.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics) -> None:
        self._app = app
        self._gate = Gate(limits.streams, limits.queue)
        # a session that waited would look dead to its client
        self._sessions = Gate(limits.sessions, 0, work="sessions")
        self._metrics = metrics
        metrics.watch_gate(self._gate, self._sessions)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for a place and pass the request on, or answer 429."""
        if scope["type"] in ("http", "websocket") and not _is_routed(scope):
            # 404 and 405 are no work: they take no place and say nothing about the pace
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            gate, patient = self._sessions, _Patient(receive, holds=False)
        elif scope["type"] == "http" and scope["method"] == "POST":
            gate, patient = self._gate, _Patient(receive)
        else:
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0
        turn = asyncio.ensure_future(gate.enter())

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            if await patient.until(turn):
                self._metrics.queue_seconds.observe(time.monotonic() - began)
                await self._app(scope, patient.receive, watched)
        except RequestError as error:
            if not turn.done() or turn.exception() is not error:
                raise
            self._metrics.refused.labels("queue" if gate is self._gate else "sessions").inc()
            await refuse(error, scope, patient.receive, send)
        finally:
            if not turn.done():
                turn.cancel()
                await asyncio.wait((turn,))
            if not turn.cancelled() and turn.exception() is None:
                gate.leave(turn.result(), was_work=status < _FIRST_REFUSAL)


def _is_routed(scope: Scope) -> bool:
    """Tell whether a route of the application answers this path and method."""
    routes = scope["app"].router.routes if "app" in scope else ()
    return any(route.matches(scope)[0] is Match.FULL for route in routes)


class _Patient:
    """Reads ahead while a request waits, so that a client that leaves is noticed and leaves the queue."""

    def __init__(self, receive: Receive, holds: bool = True) -> None:
        self._receive = receive
        self._held: deque[Message] = deque()
        self._n_bytes = 0
        self._reads_ahead = holds

    async def until(self, turn: asyncio.Future[float]) -> bool:
        """Wait for a turn; return False when the client leaves first."""
        # an open gate takes one turn of the loop
        await asyncio.sleep(0)
        while not turn.done() and self._reads_ahead:
            news = asyncio.ensure_future(self._receive())
            try:
                await asyncio.wait((turn, news), return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
            if not news.done() or news.cancelled():
                continue
            message = news.result()
            self._held.append(message)
            if message["type"] == "http.disconnect":
                return False
            self._n_bytes += len(message.get("body", b""))
            self._reads_ahead = self._n_bytes < _HELD_BYTES
        await asyncio.wait((turn,))
        # raises what the gate said
        turn.result()
        return True

    async def receive(self) -> Message:
        """Return the next message, those read ahead first."""
        return self._held.popleft() if self._held else await self._receive()
