"""A fence: of all connections that one part has had, only the present one can change anything.

What was written to a connection that was given up may reach Redis much later: it lay in a stalled
path, or Redis was frozen. By then its successor has done the same, or something else.

Invariants:

1. A connection raises the fence before it sends anything that the fence guards.
2. What the fence guards names the connection's token, and changes nothing where another has raised
   the fence since: its answer is an error that begins with ``FENCED``.
3. No token is ever used twice.
"""

import secrets
from typing import Final

from twisted.internet.defer import Deferred

from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.errors import Refused
from queuerelay.wire.commands import fence
from queuerelay.wire.keys import Keys

#: Of both parts, in bytes.
_RANDOM: Final = 8


class Fence:
    """The fence of one part, on the connection that the part uses."""

    def __init__(self, connection: RedisConnection, keys: Keys) -> None:
        self._connection = connection
        self.key: str = keys.fence(secrets.token_hex(_RANDOM))
        #: Of the present connection.
        self.token = ""

    def up(self) -> Deferred[frozenset[int] | None]:
        """Raise the fence for a new token. Fires with the numbers of pushes that were executed and
        not heard of; None where Redis does not know the fence, any more or yet.
        """
        self.token = secrets.token_hex(_RANDOM)
        return self._connection.run(fence(self.key, self.token))


def fenced(error: BaseException | None) -> bool:
    """Whether a command was refused because another connection has raised the fence since, or
    because Redis does not know it any more.
    """
    return isinstance(error, Refused) and str(error.args[0]).startswith("FENCED")
