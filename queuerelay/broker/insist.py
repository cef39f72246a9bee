"""Steps that may be taken twice, and are taken until somebody says that they were."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from queuerelay.errors import ConnectionDropped, NotConnected


def insist(
    send: Callable[[], Deferred[bool]], when_up: Callable[[], Deferred[None]]
) -> Deferred[bool]:
    """`send`, over any number of lost connections; fires with what it gave.

    Fails with `NotConnected` when `when_up` says that there will be no other connection, and with
    `Refused` where Redis says no: that is an answer.
    """

    def lost(failure: Failure) -> Deferred[bool]:
        failure.trap(NotConnected, ConnectionDropped)
        unsure = failure.check(ConnectionDropped) is not None
        return Deferred.fromCoroutine(_again(send, when_up, unsure))

    # Nearly always this is all of it, so only what comes after a loss is a coroutine.
    return send().addErrback(lost)


async def _again(
    send: Callable[[], Deferred[bool]], when_up: Callable[[], Deferred[None]], unsure: bool
) -> bool:
    while True:
        await when_up()
        try:
            # Where an earlier try did take effect, this one finds nothing to do: it is done either
            # way.
            return await send() or unsure
        except (NotConnected, ConnectionDropped) as error:
            unsure = unsure or isinstance(error, ConnectionDropped)
