"""Pools on a `Clock`, a broker in memory, and processes that do what the test says."""

import json
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from queuerelay.config import PoolConfig
from queuerelay.pool.pool import Pool
from queuerelay.pool.runtime import Runtime
from queuerelay.pool.stopping import Stopping
from queuerelay.processes.interfaces import IGroupTransport, IProcesses
from queuerelay.testing import MemoryBroker, MemoryStore
from queuerelay.wire.message import encode_request

#: Unix seconds at the clock's zero.
EPOCH = 1_790_000_000.0
#: A program that is there, of which nothing is run.
PROGRAM = "/bin/true"
#: Of jobs.
REPLY_TO = "queuerelay:results:mine"
#: Seconds; the default.
LEASE = PoolConfig(name="p", queues=("q",), command=(PROGRAM,)).lease


@implementer(IGroupTransport)
class FakeProcess:
    """A process of a test's; the methods below `The test's` make it do things."""

    def __init__(
        self, processes: "FakeProcesses", protocol: Any, argv: Sequence[bytes], env: Any
    ) -> None:
        self._processes = processes
        self.protocol = protocol
        self.argv = list(argv)
        self.env: dict[bytes, bytes] = env
        self.pid: int | None = processes.next_pid()
        self.stdin = b""
        self.stdin_closed = self.stdout_closed = False
        self.signals: list[str] = []
        #: Whether TERM ends it.
        self.obedient = True
        self.gone = self.ended = False

    # The test's

    def print(self, data: bytes) -> None:
        """On stdout."""
        assert not self.ended
        self.protocol.childDataReceived(1, data)

    def complain(self, data: bytes) -> None:
        """On stderr."""
        assert not self.ended
        self.protocol.childDataReceived(2, data)

    def exit(self, code: int = 0, *, pipes: bool = True) -> None:
        """End; with `pipes` false something that it started keeps them open."""
        self._end(ProcessTerminated(code) if code else ProcessDone(0), pipes)

    def die(self, number: int = signal.SIGSEGV, *, pipes: bool = True) -> None:
        """End by a signal."""
        self._end(ProcessTerminated(None, number), pipes)

    def never(self, error: OSError) -> None:
        """It could not be started, as only a launcher learns so late."""
        self.gone, self.pid = True, None
        self._reason = Failure(error)
        self.protocol.processExited(self._reason)
        self.close()

    def close(self) -> None:
        """Let go of the pipes, after the end."""
        if not self.ended:
            self.ended = True
            self.protocol.processEnded(self._reason)

    def _end(self, reason: Exception, pipes: bool) -> None:
        assert not self.gone, "it ends once"
        self.gone, self.pid = True, None
        self._reason = Failure(reason)
        self.protocol.processExited(self._reason)
        if pipes:
            self.close()

    # What the pool calls

    def write(self, data: bytes) -> None:
        assert not self.stdin_closed
        self.stdin += data

    def closeStdin(self) -> None:
        self.stdin_closed = True

    def closeStdout(self) -> None:
        self.stdout_closed = True

    def signalGroup(self, signalID: str | int) -> None:
        if self.ended:
            raise ProcessExitedAlready
        self.signals.append(str(signalID))
        if not self.gone and (signalID == "KILL" or self.obedient):
            number = getattr(signal, f"SIG{signalID}")
            self._processes.clock.callLater(0, self._signalled, number)

    def _signalled(self, number: int) -> None:
        if not self.gone:
            self.die(number)

    def closePipes(self) -> None:
        assert self.gone
        self._processes.clock.callLater(0, self.close)

    # Nobody's

    def _unused(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    loseConnection = signalProcess = closeChildFD = closeStderr = writeToChild = _unused
    writeSequence = getPeer = getHost = pauseProducing = resumeProducing = _unused
    registerProducer = unregisterProducer = _unused


@implementer(IProcesses)
class FakeProcesses:
    """Starts them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.started: list[FakeProcess] = []
        #: What the next starts raise instead.
        self.errors: list[Exception] = []
        self._pid = 1000

    def next_pid(self) -> int:
        self._pid += 1
        return self._pid

    @property
    def alive(self) -> list[FakeProcess]:
        """Those that run, oldest first."""
        return [process for process in self.started if not process.gone]

    def spawnProcess(
        self,
        processProtocol: Any,
        executable: Any,
        args: Sequence[Any] = (),
        env: Mapping[Any, Any] | None = {},
        path: Any = None,
        uid: Any = None,
        gid: Any = None,
        usePTY: bool = False,
        childFDs: Any = None,
    ) -> Any:
        assert path is uid is gid is childFDs is None
        assert executable == args[0]
        if self.errors:
            raise self.errors.pop(0)
        process = FakeProcess(self, processProtocol, args, env)
        self.started.append(process)
        processProtocol.makeConnection(process)
        return process

    def launch(self, protocol: Any, executable: Any, args: Any, env: Any) -> Any:
        return self.spawnProcess(protocol, executable, args, env)


class OwnClock:
    """The clock as one process has it: when that is killed, nothing happens in it any more."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: list[Any] = []
        self.seconds = clock.seconds
        self.getDelayedCalls = clock.getDelayedCalls

    def callLater(self, delay: float, call: Any, *args: Any, **options: Any) -> Any:
        self._calls = [one for one in self._calls if one.active()]
        self._calls.append(self._clock.callLater(delay, call, *args, **options))
        return self._calls[-1]

    def kill(self) -> None:
        for call in self._calls:
            if call.active():
                call.cancel()


class Stage:
    """One pool, or several on one "Redis"."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock, wall_clock=self.wall)
        self.options = {"name": "p", "queues": ("q",), "command": (PROGRAM,), **options}
        self.processes = FakeProcesses(self.clock)
        self.pools: list[Pool] = []
        self.brokers: list[MemoryBroker] = []
        self.clocks: list[OwnClock] = []
        self.pool, self.broker = self.another(self.processes)

    def wall(self) -> float:
        return EPOCH + self.clock.seconds()

    def another(self, processes: FakeProcesses, **options: Any) -> tuple[Pool, MemoryBroker]:
        """One more pool, started, with a connection of its own."""
        clock = OwnClock(self.clock)
        broker = MemoryBroker(clock=clock, wall_clock=self.wall, store=self.store)
        broker.start()
        given = {**self.options, **options}
        size = given.get("size", 1)
        config = PoolConfig(**{"min": size, "max": size, **given})
        pool = Pool(
            config,
            Runtime(
                broker=broker,
                processes=processes,
                clock=clock,
                wall_clock=self.wall,
                holder=f"host:{len(self.pools) + 1}",
                stopping=Stopping(clock),
            ),
        )
        self.pools.append(pool)
        self.brokers.append(broker)
        self.clocks.append(clock)
        pool.start()
        return pool, broker

    def turns(self, number: int = 20) -> None:
        """Let all happen that needs no time."""
        for _ in range(number):
            self.clock.advance(0)

    def advance(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass."""
        self.turns(4)
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            self.turns(4)
            seconds -= step

    def job(self, name: str = "1", queue: str = "q", **more: Any) -> bytes:
        """Push a job, and let it be taken."""
        message = json.dumps(
            {"class": "Job", "args": [{"name": name, **more}], "queue": queue, "id": name}
        ).encode()
        self.put(message, queue)
        return message

    def request(self, name: str = "r", queue: str = "q", **more: Any) -> bytes:
        """Push a request, and let it be taken."""
        fields: dict[str, Any] = {
            "queue": queue,
            "node_id": name,
            "url": "/",
            "method": "GET",
            "http_version": "1.1",
            "headers": [("host", "example.org")],
            "body": b"",
            "remote_addr": "192.0.2.1",
            "scheme": "http",
            "reply_to": f"queuerelay:inbox:{name}",
            "accepted_at": self.wall(),
            "deadline": self.wall() + 60.0,
        }
        message = encode_request(**{**fields, **more})
        self.put(message, queue)
        return message

    def put(self, message: bytes, queue: str = "q") -> None:
        self.store.push(queue, [message])
        self.turns()
        # A bell that was waited for rings in a turn of its broker; it looks by itself in 2 s.
        self.advance(2.0)

    def store_only(self, message: bytes, queue: str) -> None:
        """In the place of `put`: no time passes."""
        self.store.push(queue, [message])

    @property
    def replies(self) -> list[dict[str, Any]]:
        """Of requests and of jobs, list by list."""
        answered = ("queuerelay:inbox:", REPLY_TO)
        found = [name for name in self.store.lists.content if name.startswith(answered)]
        return [json.loads(item) for name in found for item in self.store.items(name)]

    @property
    def failed(self) -> list[dict[str, Any]]:
        return [json.loads(item) for item in self.store.dead_letters]

    @property
    def delayed(self) -> list[bytes]:
        return [one.message for one in self.store.delayed.get("q", [])]

    @property
    def waiting(self) -> list[bytes]:
        return self.store.messages("q")

    @property
    def inflight(self) -> list[bytes]:
        return [claim.message for claim in self.store.inflight("q")]

    def end(self) -> None:
        """Stop all; nothing may be left."""
        for pool in self.pools:
            fired: list[object] = []
            pool.stop().addBoth(fired.append)
            for _ in range(400):
                if fired:
                    break
                self.advance(0.25)
            assert fired == [None], "a pool did not stop"
            assert not pool.busy
        for processes in {id(one): one for one in [self.processes]}.values():
            assert not processes.alive, "a process was left running"
        for broker in self.brokers:
            broker.stop()
        self.turns()
        left = self.clock.getDelayedCalls()
        assert not left, f"timers were left: {[str(call) for call in left]}"
