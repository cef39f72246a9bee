"""Steps that may be taken twice, and are taken until somebody says that they were."""

from collections.abc import Callable

from twisted.internet.defer import Deferred

from queuerelay.errors import ConnectionDropped, NotConnected


async def insist(send: Callable[[], Deferred[bool]], when_up: Callable[[], Deferred[None]]) -> bool:
    """`send`, over any number of lost connections; gives what it gave.

    Ends with `NotConnected` when `when_up` says that there will be no other connection, and with
    `Refused` where Redis says no: that is an answer.
    """
    unsure = False
    while True:
        try:
            return await send() or unsure
        except (NotConnected, ConnectionDropped) as error:
            # Where the first try did take effect, the second finds nothing to do: it is done
            # either way.
            unsure = unsure or isinstance(error, ConnectionDropped)
            await when_up()
