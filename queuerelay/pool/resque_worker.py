"""A pool as Resque's tools see it: a worker on the list, what it runs, and its counters."""

import os
from collections.abc import Sequence
from typing import Final

import orjson

from queuerelay.broker.base import Broker
from queuerelay.broker.records import SNAPSHOT_LIFE, Survey
from queuerelay.pool.tally import Tally
from queuerelay.wire.claim import Claim

#: How often to tell before those who were killed are taken off the list: by then what they have
#: published last is gone.
PRUNE_IN: Final = int(SNAPSHOT_LIFE) + 3


class Presence:
    """Tells Resque's tools, once for many jobs: `tell` is to be called every second or so.

    A pool is one worker on the list however many slots it has, and shows its oldest message.
    """

    def __init__(self, broker: Broker, worker_id: str, queues: Sequence[str], tally: Tally) -> None:
        self._broker = broker
        self._id = worker_id
        self._queues = queues
        self._tally = tally
        self._shown: Claim | None = None
        self._listed = False
        #: Calls of `tell` until those who were killed are taken off the list, 0 for never.
        self._prune_in = 0
        self._processed = self._failed = 0
        # The other side may be another Redis then.
        broker.on_up(self._forget)

    def _forget(self) -> None:
        self._listed, self._shown = False, None

    def tell(self, oldest: Claim | None) -> None:
        """Tell that the pool works on `oldest` now, or on nothing."""
        if not self._broker.is_up:
            return
        if not self._listed:
            self._listed = True
            self._broker.registry.register(self._id, self._queues)
            self._prune_in = PRUNE_IN
        if self._prune_in:
            self._prune_in -= 1
            if not self._prune_in:
                self._broker.nodes.survey().addCallbacks(self._prune, lambda _: None)
        if oldest != self._shown:
            self._shown = oldest
            queue, message = (oldest.queue, oldest.message) if oldest is not None else ("", None)
            self._broker.registry.working_on(self._id, queue, message)
        tally = self._tally
        processed, failed = tally.processed - self._processed, tally.failed - self._failed
        if processed or failed:
            self._processed, self._failed = tally.processed, tally.failed
            self._broker.registry.count(self._id, processed=processed, failed=failed)

    def _prune(self, survey: Survey) -> None:
        """Take those off the list that were killed on this host: nobody else would.

        Not those who beat: in a container of the same host name they have process ids of their own.
        """
        host, _, _ = self._id.partition(":")
        beating = {_holder(beat.snapshot) for beat in survey.nodes.values() if beat.snapshot}
        for worker in survey.workers:
            name, _, rest = worker.partition(":")
            pid = rest.partition(":")[0]
            if name != host or not (pid.isascii() and pid.isdigit() and len(pid) < 10):
                continue
            if f"{name}:{pid}" not in beating and not _alive(int(pid)):
                self._broker.registry.unregister(worker)

    def leave(self) -> None:
        """Take the pool off the list."""
        if self._broker.is_up:
            self.tell(None)
            self._broker.registry.unregister(self._id)


def _holder(snapshot: bytes) -> str:
    """Host and process of a node, as ids of Resque workers have them; "" where it does not tell."""
    try:
        value = orjson.loads(snapshot)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(value, dict):
        return ""
    return f"queuerelay.{value.get('host')}:{value.get('pid')}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        # It is another user's, or no process id at all.
        return True
    return True
