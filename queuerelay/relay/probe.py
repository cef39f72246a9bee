"""The deep check: a request that does nothing, through queue and worker and back.

It is ``OPTIONS *``, which RFC 9110 9.3.7 calls a ping, on the queue of requests that no route
takes: for the workers a request like any other, and for the relay too, which counts it.

Invariants:

1. One check at a time; who asks meanwhile, or within `FRESH` seconds of the last, gets its result.
2. A check ends after `BOUND` seconds, and what it had sent is taken off the queue then.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from queuerelay.errors import Refusal
from queuerelay.wire.reply import Reply

#: Seconds that an answer may take.
BOUND: Final = 5.0
#: Seconds for which a result is given again.
FRESH: Final = 1.0


class Holder(Protocol):
    """What sends a request: `queuerelay.relay.relay.Relay`."""

    def hold(
        self,
        client: Any,
        *,
        method: str,
        url: str,
        http_version: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        remote_addr: str,
        scheme: str,
    ) -> Any:
        """Put a request on its queue; `Refusal` where that cannot be."""

    def gone(self, held: Any) -> None:
        """The client has left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a check."""

    ok: bool
    #: Seconds there and back.
    seconds: float
    #: The worker's status, or that of our own error; None where nothing came.
    status: int | None = None
    #: Why it is not well: the reason of a refusal, ``worker-error``, ``no-answer``; "" where it is.
    reason: str = ""


class _Client:
    """The check as the relay's client."""

    backlog = 0

    def __init__(self) -> None:
        self.done: Deferred[Result] = Deferred()

    def answer(self, reply: Reply) -> None:
        """A worker has answered."""
        well = reply.status < 500
        reason = "" if well else "worker-error"
        self._fire(Result(ok=well, seconds=0.0, status=reply.status, reason=reason))

    def begin(self, reply: Reply, parts: Sequence[bytes], *, last: bool) -> bool:
        """A worker has begun to answer, which is enough."""
        self.answer(reply)
        return False

    def proceed(self, parts: Sequence[bytes], *, last: bool) -> None:
        """Nobody reads it."""

    def refuse(self, refusal: Refusal) -> None:
        """The relay has given up."""
        self._fire(Result(ok=False, seconds=0.0, status=refusal.status, reason=refusal.reason))

    def abort(self) -> None:
        """The relay failed."""
        self._fire(Result(ok=False, seconds=0.0, reason="internal"))

    def _fire(self, result: Result) -> None:
        if not self.done.called:
            self.done.callback(result)


class Deep:
    """The checks of one process."""

    def __init__(self, holder: Holder, *, clock: IReactorTime) -> None:
        self._holder = holder
        self._clock = clock
        self._waiting: list[Deferred[Result]] = []
        self._last: Result | None = None
        self._at = 0.0
        #: Ends the check under way, and when.
        self._late: Callable[[], None] = lambda: None
        self._timer: IDelayedCall | None = None

    def stop(self) -> None:
        """End the check under way."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
            self._late()

    def check(self) -> Deferred[Result]:
        """Check, or join the check under way; never fails."""
        waiter: Deferred[Result] = Deferred()
        if self._last is not None and self._clock.seconds() - self._at < FRESH:
            waiter.callback(self._last)
            return waiter
        self._waiting.append(waiter)
        if len(self._waiting) == 1:
            self._send()
        return waiter

    def _send(self) -> None:
        client, began = _Client(), self._clock.seconds()
        held: Any = None
        refused: Refusal | None = None
        try:
            held = self._holder.hold(
                client,
                method="OPTIONS",
                url="*",
                http_version="1.1",
                headers=[("host", "localhost"), ("user-agent", "queuerelay-healthz")],
                body=b"",
                remote_addr="",
                scheme="http",
            )
        except Refusal as refusal:
            refused = refusal

        def late() -> None:
            if held is not None:
                self._holder.gone(held)
            if not client.done.called:
                client.done.callback(Result(ok=False, seconds=0.0, reason="no-answer"))

        self._late = late
        timer = self._timer = self._clock.callLater(BOUND, late)

        def ended(result: Result) -> None:
            if timer.active():
                timer.cancel()
            self._at = self._clock.seconds()
            self._last = replace(result, seconds=self._at - began)
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(self._last)

        client.done.addCallback(ended)
        if refused is not None:
            client.refuse(refused)
