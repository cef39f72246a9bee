"""How fast scripts are started, side by side: Twisted's `spawnProcess` and our `Spawner.launch`.

    python benchmarks/spawn.py [--rounds 25] [--seconds 0.3] [--connections 10000]

It runs `/bin/true` with stdin, stdout and stderr piped, four at a time; first with few descriptors,
then with 10,000 idle connections held, whose other ends are in another process. Twisted's and
ours take short turns in one process, in a new order each round, and only the ratio within a
round counts: other things may keep the machine busy. The median over the rounds is the figure.

A stall is a long call that starts one. A preempted one is long too, so beside the wall time
stands the processor time that the call itself took, and two controls in the same rounds: how late
a timer of 1 ms comes when nothing is started at all, and when the same programs are started four
at a time by somebody else, so that this process does nothing but share the machine with them.
What this other process does to us is what the programs themselves cost anybody here.
"""

import argparse
import gc
import os
import random
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

if __name__ == "__main__" and os.getpgid(0) != os.getpid():
    # Away from a terminal, as a daemon is: there our processes need no session of their own.
    os.setsid()

if "twisted.internet.reactor" not in sys.modules:
    from twisted.internet import epollreactor

    epollreactor.install()  # as twistd does on Linux

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol

from queuerelay.processes.spawner import Spawner

#: Processes at a time.
WIDTH = 4
#: Seconds after which a timer of the reactor's is due again.
TICK = 0.001
#: What is to be reached: ratio with few descriptors, with many, and seconds of a stall.
FEW, MANY, STALL = 1.1, 8.0, 0.005

#: Holds the other ends: its arguments are a port and a number.
HOLDER = """
import resource, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(int(sys.argv[2]))]
sys.stdin.read()
"""

#: Starts the same programs beside us, as many at a time: "go" and "stop" on its stdin.
OTHER = """
import os, select, sys
null = os.open(os.devnull, os.O_RDWR)
actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
def start():
    os.posix_spawn("/bin/true", ["/bin/true"], {}, file_actions=actions)
while sys.stdin.readline():
    for _ in range(int(sys.argv[1])):
        start()
    while not select.select([sys.stdin], [], [], 0)[0]:
        os.wait()
        start()
    sys.stdin.readline()
    for _ in range(int(sys.argv[1])):
        os.wait()
    print("quiet", flush=True)
"""

Spawn = Callable[..., object]


class Job(ProcessProtocol):
    """One process; stdin is closed at once, as a pool does."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self.ended = ended

    def connectionMade(self) -> None:
        self.transport.closeStdin()

    def processEnded(self, reason: object) -> None:
        self.ended()


class Run:
    """Starts processes for `seconds`, and counts; `spawn` None starts nothing."""

    def __init__(self, spawn: Spawn | None, seconds: float) -> None:
        self.spawn = spawn
        self.done: Deferred[Run] = Deferred()
        self.jobs = self.running = 0
        #: Seconds of each call that starts one: by the clock, and of our processor time.
        self.calls: list[float] = []
        self.cpu: list[float] = []
        #: Seconds by which each tick came late.
        self.late: list[float] = []
        #: Processes per second, and processor seconds of ours for each.
        self.rate = self.cost = 0.0
        self.begin = time.perf_counter()
        self.begin_cpu = time.process_time()
        self.end = self.begin + seconds
        self.due = self.begin + TICK
        self.ticks = reactor.callLater(TICK, self.tick)
        for _ in range(WIDTH if spawn is not None else 0):
            self.start()

    def tick(self) -> None:
        now = time.perf_counter()
        self.late.append(now - self.due)
        if self.spawn is None and now > self.end:
            self.done.callback(self)
            return
        self.due = now + TICK
        self.ticks = reactor.callLater(TICK, self.tick)

    def start(self) -> None:
        assert self.spawn is not None
        self.running += 1
        begin, begin_cpu = time.perf_counter(), time.thread_time()
        self.spawn(Job(self.ended), "/bin/true", ["/bin/true"], env={})
        self.cpu.append(time.thread_time() - begin_cpu)
        self.calls.append(time.perf_counter() - begin)

    def ended(self) -> None:
        self.running -= 1
        self.jobs += 1
        if time.perf_counter() < self.end:
            self.start()
        elif not self.running:
            self.rate = self.jobs / (time.perf_counter() - self.begin)
            self.cost = (time.process_time() - self.begin_cpu) / self.jobs
            self.ticks.cancel()
            self.done.callback(self)


def hold(count: int) -> Callable[[], None]:
    """Connections that the reactor holds; returns what closes them."""
    factory = Factory.forProtocol(Protocol)
    factory.noisy = False
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    command = [sys.executable, "-c", HOLDER, str(listening.getsockname()[1]), str(count)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE)
    for _ in range(count):
        served, _address = listening.accept()
        served.setblocking(False)
        reactor.adoptStreamConnection(served.fileno(), socket.AF_INET, factory)
        served.close()
    listening.close()
    return lambda: holder.communicate() and None


def start_other() -> "subprocess.Popen[str]":
    """The process of `OTHER`."""
    return subprocess.Popen(
        [sys.executable, "-c", OTHER, str(WIDTH)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def tell(other: "subprocess.Popen[str]", what: str) -> None:
    """A line to it."""
    assert other.stdin is not None
    other.stdin.write(f"{what}\n")


def heard(other: "subprocess.Popen[str]") -> None:
    """Once it has said something."""
    assert other.stdout is not None
    other.stdout.readline()


def spread(values: list[float]) -> str:
    """Median, 99th percentile and maximum, in milliseconds."""
    ordered = sorted(values)
    parts = (0.5, 0.99, 1.0)
    return " / ".join(
        f"{ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000:.2f}" for part in parts
    )


async def compare(
    title: str, ways: dict[str, Spawn], options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Rounds of all ways; ratios are to the first."""
    print(f"\n{title}")
    base = next(iter(ways))
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    idle: list[float] = []
    beside: list[float] = []
    other = start_other()
    for spawn in ways.values():
        await Run(spawn, 0.1).done  # warm up
    for _ in range(options.rounds):
        for name in random.sample(list(ways), len(ways)):
            gc.collect()
            runs[name].append(await Run(ways[name], options.seconds).done)
        idle += (await Run(None, options.seconds).done).late
        tell(other, "go")
        beside += (await Run(None, options.seconds).done).late
        tell(other, "stop")
        heard(other)
    other.communicate()
    results = {}
    head = "call ms p50 / p99 / max, its own CPU ms, tick late ms"
    print(f"  {'':8} {'jobs/s':>7} {'CPU us/job':>10} {'ratio':>6}  quartiles    {head}")
    for name, those in runs.items():
        ratios = [one.rate / first.rate for one, first in zip(those, runs[base], strict=True)]
        low, middle, high = statistics.quantiles(ratios)
        calls = [call for run in those for call in run.calls]
        cpu = [call for run in those for call in run.cpu]
        late = [delay for run in those for delay in run.late]
        results[name] = {"ratio": middle, "call": calls, "cpu": cpu}
        print(
            f"  {name:8} {statistics.median(run.rate for run in those):7.0f}"
            f" {statistics.median(run.cost for run in those) * 1e6:10.0f} {middle:6.2f}"
            f"  {low:.2f} - {high:.2f}  {spread(calls)}, {spread(cpu)}, {spread(late)}"
        )
        if name != base:
            print(f"           per round: {' '.join(f'{ratio:.2f}' for ratio in ratios)}")
    print(f"  idle     tick late ms: {spread(idle)}")
    print(f"  beside   tick late ms: {spread(beside)}")
    results[base]["beside"] = beside
    return results


def judge(what: str, value: float, wanted: float, *, at_least: bool) -> bool:
    """Print whether a figure is reached."""
    reached = value >= wanted if at_least else value <= wanted
    sign = ">=" if at_least else "<="
    print(f"{'reached' if reached else 'NOT REACHED':11}  {what}: {value:.2f} ({sign} {wanted:g})")
    return reached


async def main(_: object, options: argparse.Namespace) -> None:
    """Both parts, and whether the figures are reached."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < options.connections + 200:
        options.connections = hard - 200
        print(f"RLIMIT_NOFILE allows only {options.connections} connections")
    # As the daemon does, or a collection in the middle of a call would count as a stall.
    gc.set_threshold(50_000, 20, 100)
    gc.freeze()
    spawner = Spawner(reactor=reactor)
    print(f"{os.cpu_count()} processors, Python {sys.version.split()[0]}, pidfd {spawner.native}")
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}")
    ways: dict[str, Spawn] = {"twisted": reactor.spawnProcess, "ours": spawner.launch}
    with_wrapper = dict(ways)
    setpriv = shutil.which("setpriv")
    if setpriv is not None:
        # The other way to end workers with a killed daemon: what the guardian saves.
        def wrapped(job: Job, executable: str, args: list[str], env: dict[str, str]) -> object:
            argv = [setpriv, "--pdeathsig", "KILL", "--", *args]
            return spawner.spawnProcess(job, setpriv, argv, env=env)

        with_wrapper["setpriv"] = wrapped
    few = await compare("few descriptors", with_wrapper, options)
    close = hold(options.connections)
    gc.collect()
    gc.freeze()
    many = await compare(f"{options.connections} connections held", ways, options)
    close()
    await spawner.stop()
    print()
    cpu = max(few["ours"]["cpu"] + many["ours"]["cpu"])
    calls = few["ours"]["call"] + many["ours"]["call"]
    reached = [
        judge("ratio, few descriptors", few["ours"]["ratio"], FEW, at_least=True),
        judge(f"ratio, {options.connections} held", many["ours"]["ratio"], MANY, at_least=True),
        judge("longest call, its own CPU, ms", cpu * 1e3, STALL * 1e3, at_least=False),
        judge("longest call, by the clock, ms", max(calls) * 1e3, STALL * 1e3, at_least=False),
    ]
    beside = few["twisted"]["beside"] + many["twisted"]["beside"]
    for what, times in (("calls took", calls), ("ticks beside were late by", beside)):
        long = [one for one in times if one > STALL]
        print(
            f"{len(long)} of {len(times)} {what} more than {STALL * 1e3:g} ms by the clock:"
            f" {len(long) / len(times) * 1e4:.1f} in 10,000, the longest {max(times) * 1e3:.1f} ms"
        )
    if not all(reached):
        raise SystemExit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each turn")
    parser.add_argument("--connections", type=int, default=10_000)
    task.react(main, [parser.parse_args()])
