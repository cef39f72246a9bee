"""What a Redis may lose of what it is given, told in the log when it is connected to."""

from collections.abc import Sequence
from typing import Final

from twisted.logger import Logger
from twisted.python.failure import Failure

from queuerelay.broker.redis.connection import RedisConnection
from queuerelay.errors import BrokerError
from queuerelay.wire import storage
from queuerelay.wire.commands import Command
from queuerelay.wire.storage import Storage

#: Told where there is neither an append-only file nor a snapshot; somebody may want it so.
NOTHING_KEPT: Final = "this Redis keeps nothing over a restart: appendonly no, and no save"


class KeepingLog:
    """Warns of a Redis that drops what it is given; what was told last is not told again."""

    _log = Logger()

    def __init__(self, commands: RedisConnection, asked: Sequence[Command]) -> None:
        self._commands = commands
        self._asked = asked
        self._told: set[str] = set()

    def connected(self) -> None:
        """Look, on a new connection."""
        asking = self._commands.pipeline(*self._asked).addCallback(storage.of)
        asking.addCallbacks(self._tell, _lost)
        asking.addErrback(lambda failure: self._log.failure("storage is not looked at", failure))

    def _tell(self, found: Storage) -> None:
        texts = {text for _, text in found.complaints()}
        for text in sorted(texts - self._told):
            self._log.warn("{text}", text=text)
        if found.persistence == "none":
            texts.add(NOTHING_KEPT)
            if NOTHING_KEPT not in self._told:
                self._log.info("{text}", text=NOTHING_KEPT)
        self._told = texts


def _lost(failure: Failure) -> None:
    # Whoever keeps the connection tells of that.
    failure.trap(BrokerError)
