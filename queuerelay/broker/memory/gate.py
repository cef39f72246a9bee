"""Which queues are paused, in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from queuerelay.broker.base import Gate


@dataclass(slots=True)
class GateStore:
    """This part of what one Redis holds."""

    #: Unix seconds.
    now: Callable[[], float]
    #: Called with a queue that was resumed.
    opened: Callable[[str], object]
    #: By queue.
    paused: dict[str, Gate] = field(default_factory=dict)

    def pause(self, queue: str, by: str) -> bool:
        """`Broker.pause`."""
        if queue in self.paused:
            return False
        self.paused[queue] = Gate(since=self.now(), by=by)
        return True

    def resume(self, queue: str) -> bool:
        """`Broker.resume`."""
        if self.paused.pop(queue, None) is None:
            return False
        self.opened(queue)
        return True

    def gates(self, queues: Sequence[str] | None) -> dict[str, Gate]:
        """`Broker.gates`."""
        asked = self.paused if queues is None else queues
        return {queue: self.paused[queue] for queue in asked if queue in self.paused}
