"""The probe: a request that does nothing, through queue and worker and back.

The probe is ``OPTIONS *``, which RFC 9110 9.3.7 calls a ping, on the queue of requests that no
route takes: for the workers a request like any other, and for the relay too, which counts it.

Invariants:

1. One request at a time; whoever asks meanwhile, or within `FRESH` seconds of the last, gets its
   result.
2. A probe ends after `BOUND` seconds, and the request that it sent is taken off the queue then.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from queuerelay.errors import Refusal
from queuerelay.relay.held import Held
from queuerelay.relay.relay import Relay
from queuerelay.waiters import Waiters
from queuerelay.wire.reply import Reply

#: Seconds that an answer may take.
BOUND: Final = 5.0
#: Seconds for which a result is given again.
FRESH: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """The result of a probe."""

    ok: bool
    #: Seconds from the request to its answer.
    seconds: float
    #: The worker's status, or that of our own error; None where nothing came.
    status: int | None = None
    #: Why the probe failed: the reason of a refusal, ``worker-error``, ``no-answer``; "" where it
    #: did not.
    reason: str = ""


class _ProbeClient:
    """The probe as the relay's `HeldClient`."""

    backlog = 0

    def __init__(self) -> None:
        self.done: Deferred[ProbeResult] = Deferred()

    def answer(self, reply: Reply) -> None:
        """A worker has answered."""
        well = reply.status < 500
        reason = "" if well else "worker-error"
        self._fire(ProbeResult(ok=well, seconds=0.0, status=reply.status, reason=reason))

    def begin(self, reply: Reply, parts: Sequence[bytes], *, last: bool) -> bool:
        """A worker has begun to answer, which is enough."""
        self.answer(reply)
        return False

    def proceed(self, parts: Sequence[bytes], *, last: bool) -> None:
        """A probe reads nothing, so there is nothing to go on with."""

    def refuse(self, refusal: Refusal) -> None:
        """The relay has given up."""
        self._fire(ProbeResult(ok=False, seconds=0.0, status=refusal.status, reason=refusal.reason))

    def abort(self) -> None:
        """The relay failed."""
        self._fire(ProbeResult(ok=False, seconds=0.0, reason="internal"))

    def _fire(self, result: ProbeResult) -> None:
        if not self.done.called:
            self.done.callback(result)


class Probe:
    """The probes of one process, by `relay`."""

    def __init__(self, relay: Relay, *, clock: IReactorTime) -> None:
        self._relay = relay
        self._clock = clock
        self._asking: Waiters[ProbeResult] = Waiters()
        self._last: ProbeResult | None = None
        self._at = 0.0
        #: Ends the probe under way.
        self._late: Callable[[], None] = lambda: None
        #: The call of `_late` after `BOUND`; None where no probe is under way.
        self._timer: IDelayedCall | None = None

    def stop(self) -> None:
        """End the probe under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._late()

    def check(self) -> Deferred[ProbeResult]:
        """Send a request, or join the probe under way; never fails."""
        if self._last is not None and self._clock.seconds() - self._at < FRESH:
            return succeed(self._last)
        asked = self._asking.wait()
        if self._timer is None:
            self._send()
        return asked

    def _send(self) -> None:
        client, began = _ProbeClient(), self._clock.seconds()
        held: Held | None = None
        refused: Refusal | None = None
        try:
            held = self._relay.hold(
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
                self._relay.gone(held)
            if not client.done.called:
                client.done.callback(ProbeResult(ok=False, seconds=0.0, reason="no-answer"))

        self._late = late
        timer = self._timer = self._clock.callLater(BOUND, late)

        def ended(result: ProbeResult) -> None:
            if timer.active():
                timer.cancel()
            self._timer = None
            self._at = self._clock.seconds()
            self._last = replace(result, seconds=self._at - began)
            self._asking.fire(self._last)

        client.done.addCallback(ended)
        if refused is not None:
            client.refuse(refused)
