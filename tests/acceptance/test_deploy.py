"""What the product is for: workers come and go, die and are upgraded, and clients only wait."""

import ctypes
import json
import os
import signal
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests.acceptance.stage import Client, Stage, get, request
from tests.helpers.processes import children
from tests.helpers.waiting import PATIENCE, eventually

CLIENTS = 12


@dataclass
class Visitor:
    """One client that asks one thing after the other over one connection, until told to stop."""

    number: int
    port: int
    methods: tuple[str, ...] = ("GET", "POST")
    #: Releases of the application that answered, in order.
    releases: list[str] = field(default_factory=list)
    #: What was not as it should be.
    wrong: list[str] = field(default_factory=list)

    def visit(self, enough: threading.Event) -> None:
        """Each answer must be a whole one, and to this client's own question."""
        with Client(self.port) as client:
            turn = 0
            while not enough.is_set() and not self.wrong:
                method = self.methods[turn % len(self.methods)]
                word = f"{self.number}-{turn}"
                body = b"x" if method == "POST" else None
                answer = client.ask(request(method, f"/say/{word}", body=body))
                if answer.status != 200 or json.loads(answer.body)["word"] != word:
                    self.wrong.append(f"{method} {word}: {answer}")
                else:
                    self.releases.append(json.loads(answer.body)["release"])
                turn += 1


class Crowd:
    """Many visitors at once."""

    def __init__(self, port: int, **options: tuple[str, ...]) -> None:
        self.visitors = [Visitor(number, port, **options) for number in range(CLIENTS)]
        self._enough = threading.Event()
        self._threads = ThreadPoolExecutor(CLIENTS)
        self._visits: list[Future[None]] = []

    def __enter__(self) -> "Crowd":
        self._visits = [
            self._threads.submit(visitor.visit, self._enough) for visitor in self.visitors
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._threads.shutdown()

    def each_has(self, number: int, release: str) -> None:
        """Wait until every visitor has so many answers of that release."""
        eventually(
            lambda: (
                any(visit.done() for visit in self._visits)
                or all(one.releases.count(release) >= number for one in self.visitors)
            ),
            lambda: str(self.visitors),
        )
        assert not any(visit.done() for visit in self._visits), self.wrong() or self._visits

    def wrong(self) -> list[str]:
        """Everything that any visitor found wrong."""
        return [line for visitor in self.visitors for line in visitor.wrong]


def test_deploy_all_workers_are_stopped_and_started_again_and_clients_only_wait(
    stage: Stage,
) -> None:
    """A deploy: stop every worker of release 1, have none at all for a while, start release 2."""
    port = stage.relay()
    old = [stage.worker(RELEASE="1") for _ in range(2)]
    with Crowd(port) as crowd:
        crowd.each_has(3, "1")
        # Each worker finishes what it has in hand, and says so with its exit status.
        for worker in old:
            worker.process.terminate()
        assert [worker.process.wait(PATIENCE) for worker in old] == [0, 0]
        # Now there is no application at all, and every client waits: on the queue, none lost.
        eventually(lambda: stage.queued() == CLIENTS, lambda: str(stage.queued()))
        assert stage.in_flight() == 0
        assert crowd.wrong() == []
        new = [stage.worker(RELEASE="2") for _ in range(2)]
        crowd.each_has(3, "2")
    assert crowd.wrong() == []
    for visitor in crowd.visitors:
        # Nothing came twice or late: all of release 1, then all of release 2.
        assert visitor.releases == sorted(visitor.releases)
    assert [worker.terminate() for worker in new] == [0, 0]
    answered = sum(len(visitor.releases) for visitor in crowd.visitors)
    said = [int(child.log.rpartition("stopped by SIGTERM: ")[2].split()[0]) for child in old + new]
    # POST and GET alike ran once each.
    assert sum(said) == answered


def test_workers_are_upgraded_one_by_one_under_load(stage: Stage) -> None:
    """A rolling restart: there is always one worker, of either release."""
    port = stage.relay()
    old = [stage.worker(RELEASE="1") for _ in range(2)]
    with Crowd(port) as crowd:
        crowd.each_has(3, "1")
        assert old[0].terminate() == 0
        stage.worker(RELEASE="2")
        crowd.each_has(1, "2")
        assert old[1].terminate() == 0
        stage.worker(RELEASE="2")
        seen = max(visitor.releases.count("2") for visitor in crowd.visitors)
        crowd.each_has(seen + 3, "2")
    assert crowd.wrong() == []


def test_a_worker_killed_under_load_costs_no_client_its_answer(stage: Stage) -> None:
    """kill -9 of one of two workers, while it runs a request: whatever is a GET is answered."""
    port = stage.relay()
    workers = [stage.worker("--lease", "1") for _ in range(2)]
    with ThreadPoolExecutor(1) as other, Crowd(port, methods=("GET",)) as crowd:
        crowd.each_has(3, "1")
        held = other.submit(get, port, "/hold/page")
        written = stage.directory / "page.pid"
        eventually(written.exists)
        victim = int(written.read_text())
        # Its only file: that the next to have the request writes it again shows the retry.
        written.unlink()
        (dying,) = [worker for worker in workers if victim in children(worker.pid)]
        dying.kill()
        assert dying.process.returncode == -signal.SIGKILL
        # The other worker goes on, takes over the dead one's request, and runs it again.
        eventually(written.exists)
        assert int(written.read_text()) != victim
        (stage.directory / "page.go").touch()
        answer = held.result(PATIENCE)
        seen = max(len(visitor.releases) for visitor in crowd.visitors)
        crowd.each_has(seen + 3, "1")
    assert crowd.wrong() == []
    assert answer.status == 200
    assert json.loads(answer.body)["held"] == "page"
    assert stage.redis.llen("resque:failed") == 0


def test_all_workers_killed_and_started_again_costs_no_client_its_answer(stage: Stage) -> None:
    """A power cut of the workers' machine."""
    port = stage.relay()
    workers = [stage.worker("--lease", "1", RELEASE="1") for _ in range(2)]
    with Crowd(port, methods=("GET",)) as crowd:
        crowd.each_has(3, "1")
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
        for worker in workers:
            worker.process.wait(PATIENCE)
        # Waiting on the queue, or in the hands of the dead.
        eventually(lambda: stage.queued() + stage.in_flight() == CLIENTS)
        stage.worker("--lease", "1", RELEASE="2")
        crowd.each_has(3, "2")
    assert crowd.wrong() == []


@pytest.mark.skipif(sys.platform != "linux", reason="names the thread of another process")
def test_an_idle_worker_stops_at_once_whichever_thread_the_signal_meets(stage: Stage) -> None:
    """As where it comes just before the main thread blocks: nothing interrupts that any more."""
    worker = stage.worker()

    def waits() -> bool:
        # The peek begins when the main thread waits.
        peeks = [one for one in stage.redis.client_list() if one["name"].endswith("-peek")]
        return any(one["cmd"] == "blmove" for one in peeks)

    eventually(waits, lambda: worker.log)
    (pid,) = children(worker.pid)
    others = sorted({int(name) for name in os.listdir(f"/proc/{pid}/task")} - {pid})
    assert ctypes.CDLL(None).tgkill(pid, others[0], signal.SIGTERM) == 0
    # Its wait ends by itself after 30 s.
    assert worker.process.wait(20) == 0
