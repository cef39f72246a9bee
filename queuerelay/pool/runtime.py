"""What all pools of one process run on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from twisted.internet.interfaces import IReactorTime

from queuerelay.broker.base import Broker
from queuerelay.pool.stopping import Stopping
from queuerelay.processes.interfaces import IProcesses
from queuerelay.wire.failure import KEPT, Kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Made once for a process, and given to every pool and its parts."""

    broker: Broker
    #: Starts the scripts.
    processes: IProcesses
    clock: IReactorTime
    #: Unix seconds now, by the clock of Redis: `Broker.time`.
    wall_clock: Callable[[], float]
    #: What is kept of messages that fail for good.
    kept: Kept = KEPT
    #: ``hostname:pid`` of this process: whose the claims are.
    holder: str
    #: The stop of this process.
    stopping: Stopping
    #: URL of Redis for processes that talk to it themselves, None for none; may have a password.
    address: str | None = field(default=None, repr=False)

    def worker_id(self, queues: Sequence[str]) -> str:
        """What Resque's tools call the pool that takes from `queues`."""
        return f"queuerelay.{self.holder}:{','.join(queues)}"
