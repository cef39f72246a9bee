"""Whatever happens to pools, scripts and Redis, no message is lost, doubled or tried too often."""

import errno
import json
import os
import signal
from collections import Counter
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from queuerelay.errors import MessageError
from queuerelay.wire.message import decode_message
from tests.unit.pool.stage import LEASE, REPLY_TO, FakeProcess, FakeProcesses, Stage

#: How many lives of pools are tried; more by QUEUERELAY_EXAMPLES.
EXAMPLES = int(os.environ.get("QUEUERELAY_EXAMPLES", "60"))
#: Tries of a message.
TRIES = 3
#: Pools that were killed. Kept for ever: else their coroutines would be closed some time, and what
#: they do at the end be done, in the middle of another test.
DEAD: list[dict[str, Any]] = []
#: Long enough for leases, back-offs and rests.
QUIET = 400.0

codes = st.sampled_from([0, 0, 0, 1, 75, 75, 126, 127, 255])


class PoolMachine(RuleBasedStateMachine):
    """Two pools on one store, either of which may die without a word and be replaced."""

    @initialize(
        size=st.integers(1, 3),
        gone=st.sampled_from(["finish", "kill"]),
        status=st.sampled_from(["exit", "stdout"]),
        ending=st.sampled_from([0, 0, 1, 75, None]),
    )
    def begin(self, size: int, gone: str, status: str, ending: int | None) -> None:
        #: How scripts end at last; None by a signal.
        self.ending = ending
        self.stage = Stage(
            queues=("high", "q"),
            size=size,
            client_gone=gone,
            status=status,
            timeout=30.0,
            grace=3.0,
            max_output=5000,
        )
        self.clock = self.stage.clock
        #: How each claim was settled, by its token; and the claims that were ended.
        self.settled: dict[str, str] = {}
        self.ended: list[tuple[str, str]] = []
        self.listen_to_the_store()
        # One set of processes for each pool, as they die with it.
        self.nodes = [self.node(self.stage.pool, self.stage.broker, self.stage.processes)]
        self.nodes.append(self.another())
        #: Id of each message that was pushed; whether it may run twice.
        self.pushed: dict[str, bool] = {}
        self.requests: set[str] = set()
        self.bad = 0
        self.stage.turns()

    def listen_to_the_store(self) -> None:
        end, take = self.stage.store.end, self.stage.store.claim

        def taking(*args: Any, **options: Any) -> Any:
            claim = take(*args, **options)
            # A paused queue gives nothing, whoever asks.
            assert claim is None or claim.queue not in self.stage.store.paused
            return claim

        def noting(claim: Any) -> bool:
            held = end(claim)
            if held:
                self.ended.append((claim.token, name_of(claim.message)))
            return held

        self.stage.store.end = noting  # type: ignore[method-assign]
        self.stage.store.claim = taking  # type: ignore[method-assign]

    def listen_to(self, broker: Any) -> None:
        for kind in ("ack", "retry", "delay", "fail"):
            part = broker.delayed if kind == "delay" else broker.leases
            setattr(part, kind, partial(self.settle_by, kind, getattr(part, kind)))

    def settle_by(self, kind: str, ask: Any, claim: Any, *args: Any, **more: Any) -> Any:
        assert self.settled.setdefault(claim.token, kind) == kind, "it is settled once"
        return ask(claim, *args, **more)

    def node(self, pool: Any, broker: Any, processes: FakeProcesses) -> dict[str, Any]:
        self.listen_to(broker)
        return {
            "pool": pool,
            "broker": broker,
            "processes": processes,
            "clock": self.stage.clocks[-1],
            "size": pool.size,
        }

    def another(self) -> dict[str, Any]:
        processes = FakeProcesses(self.clock)
        return self.node(*self.stage.another(processes), processes)

    def teardown(self) -> None:
        if not hasattr(self, "stage"):
            return
        self.settle()
        self.check_end()

    # What happens

    @rule(
        kind=st.sampled_from(["job", "job", "get", "post", "expired", "reply", "bad", "null"]),
        queue=st.sampled_from(["high", "q"]),
    )
    def push(self, kind: str, queue: str) -> None:
        name = f"m{len(self.pushed) + self.bad}"
        if kind == "bad":
            self.bad += 1
            self.stage.store.push(queue, [b"not json %d" % self.bad])
            return
        if kind == "null":
            self.bad += 1
            self.stage.store.push(queue, [b"{}"])
            return
        self.pushed[name] = kind != "post"
        if kind in ("job", "reply"):
            argument = {"n": name, **({"reply_to": REPLY_TO} if kind == "reply" else {})}
            value = {"class": "J", "args": [argument], "id": name}
            self.stage.store.push(queue, [json.dumps(value).encode()])
        else:
            self.requests.add(name)
            put, self.stage.put = self.stage.put, self.stage.store_only
            self.stage.request(
                name,
                queue=queue,
                method="POST" if kind == "post" else "GET",
                deadline=self.stage.wall() + (-1.0 if kind == "expired" else 1e6),
            )
            self.stage.put = put

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.1, 0.5, 2.0, 2.0, 6.0, LEASE]))
    def time(self, seconds: float) -> None:
        self.stage.advance(seconds, step=0.5)

    @rule(seconds=st.sampled_from([LEASE, 2 * LEASE]))
    def frozen(self, seconds: float) -> None:
        """All of it at once, as for processes that were stopped."""
        self.clock.advance(seconds)

    def alive(self) -> list[FakeProcess]:
        return [process for node in self.nodes for process in node["processes"].alive]

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), code=codes, pipes=st.booleans(), printed=st.integers(0, 6))
    def exit(self, data: Any, code: int, pipes: bool, printed: int) -> None:
        process = data.draw(st.sampled_from(self.alive()))
        if printed and not process.stdout_closed:
            texts = [b"1", b"2", b"3", b"Content-Type: a/b\n\nx", b"x" * 6000, b"\xff\n"]
            process.print(texts[printed - 1])
        process.exit(code, pipes=pipes)

    @rule(code=st.sampled_from([0, 1, 75, 75, None]), rounds=st.integers(1, 3))
    def all_end(self, code: int | None, rounds: int) -> None:
        for _ in range(rounds):
            for process in self.alive():
                self.finish(process, code)
            self.stage.advance(3.0, step=0.5)

    def finish(self, process: FakeProcess, code: int | None) -> None:
        if not process.stdout_closed and code == 0:
            is_request = b"REQUEST_METHOD" in process.env
            process.print(b"Content-Type: a/b\n\nx" if is_request else b"1")
        if code is None:
            process.die()
        else:
            process.exit(code)

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), number=st.sampled_from([signal.SIGSEGV, signal.SIGKILL]))
    def die(self, data: Any, number: int) -> None:
        data.draw(st.sampled_from(self.alive())).die(number)

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def disobey(self, data: Any) -> None:
        data.draw(st.sampled_from(self.alive())).obedient = False

    @rule(which=st.integers(0, 1))
    def disconnect(self, which: int) -> None:
        # Commands under way took effect, and nobody knows.
        self.nodes[which]["broker"].disconnect()

    @rule(which=st.integers(0, 1))
    def reconnect(self, which: int) -> None:
        self.nodes[which]["broker"].reconnect()

    @rule(which=st.integers(0, 1), reason=st.sampled_from([None, None, "BUSY", "OOM full"]))
    def refuse(self, which: int, reason: str | None) -> None:
        self.nodes[which]["broker"].refuse(reason)

    @rule(which=st.integers(0, 1), error=st.sampled_from([errno.EAGAIN, errno.ENOENT]))
    def cannot_start(self, which: int, error: int) -> None:
        self.nodes[which]["processes"].errors.append(OSError(error, "no"))

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), error=st.sampled_from([errno.EAGAIN, errno.ENOENT]))
    def never_started(self, data: Any, error: int) -> None:
        data.draw(st.sampled_from(self.alive())).never(OSError(error, "no"))

    @rule(which=st.integers(0, 1), size=st.integers(0, 4))
    def resize(self, which: int, size: int) -> None:
        self.nodes[which]["pool"].set_size(size)
        self.nodes[which]["size"] = max(size, self.nodes[which]["pool"].busy)

    @rule(which=st.integers(0, 1))
    def drain(self, which: int) -> None:
        self.nodes[which]["pool"].drain()

    @rule(which=st.integers(0, 1))
    def resume(self, which: int) -> None:
        self.nodes[which]["pool"].resume()

    @rule(which=st.integers(0, 1))
    def stop(self, which: int) -> None:
        """In order, and another comes in its place."""
        self.stop_pool(self.nodes[which])
        self.nodes[which] = self.another()

    @rule(which=st.integers(0, 1))
    def kill(self, which: int) -> None:
        """Without a word: its processes die, and it is cut off for ever."""
        node = self.nodes[which]
        node["broker"].disconnect()
        for process in node["processes"].alive:
            process.protocol = Deafened()
            process.die(signal.SIGKILL)
        node["broker"].stop()
        node["clock"].kill()
        self.forget(node)
        DEAD.append(node)
        self.nodes[which] = self.another()

    @rule(queue=st.sampled_from(["high", "q"]), paused=st.booleans())
    def gate(self, queue: str, paused: bool) -> None:
        store = self.stage.store
        store.pause(queue, "test") if paused else store.resume(queue)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def client_leaves(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self.requests)))
        self.stage.store.mark_gone([name], 30.0)

    # What must hold

    @invariant()
    def size_holds(self) -> None:
        for node in getattr(self, "nodes", ()):
            pool, processes = node["pool"], node["processes"]
            node["size"] = max(pool.size, min(node["size"], pool.busy))
            assert pool.busy <= node["size"]
            assert len(processes.alive) <= pool.busy

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "stage"):
            places = self.places()
            # Waiting, in flight, delayed, failed or done: one of them, and only one.
            assert places == Counter(dict.fromkeys(self.pushed, 1))

    @invariant()
    def tries_are_few(self) -> None:
        for node in getattr(self, "nodes", ()):
            for process in node["processes"].started:
                assert int(process.env[b"QUEUERELAY_ATTEMPT"]) <= TRIES

    @invariant()
    def replies_are_few(self) -> None:
        if hasattr(self, "stage"):
            counted = Counter(reply["node_id"] for reply in self.stage.replies)
            assert not [name for name, count in counted.items() if count > 1]

    def everywhere(self) -> list[bytes]:
        store, found = self.stage.store, []
        for queue in ("high", "q"):
            found += store.messages(queue)
            found += [claim.message for claim in store.inflight(queue)]
            found += [one.message for one in store.delayed.get(queue, [])]
        return found

    def places(self) -> Counter[str]:
        names = Counter(name_of(raw) for raw in self.everywhere())
        names.update(entry["queuerelay"]["id"] for entry in self.stage.failed)
        names.update(name for token, name in self.ended if self.settled.get(token) == "ack")
        del names[""]
        return names

    # The end

    def stop_pool(self, node: dict[str, Any]) -> None:
        fired: list[object] = []
        node["pool"].stop().addBoth(fired.append)
        for _ in range(60):
            if fired:
                break
            self.stage.advance(0.5, step=0.5)
        assert fired == [None], "it did not stop"
        assert not node["processes"].alive
        assert node["pool"].busy == 0
        node["broker"].stop()
        self.forget(node)

    def forget(self, node: dict[str, Any]) -> None:
        self.stage.pools.remove(node["pool"])
        self.stage.brokers.remove(node["broker"])

    def settle(self) -> None:
        """Redis is there, scripts do all the same, and everything comes to an end."""
        for queue in ("high", "q"):
            self.stage.store.resume(queue)
        for node in self.nodes:
            node["broker"].refuse(None)
            node["broker"].reconnect()
            node["processes"].errors.clear()
            node["pool"].resume()
            node["pool"].set_size(2)
        for _ in range(int(QUIET / 2)):
            self.stage.advance(2.0, step=1.0)
            for process in self.alive():
                self.finish(process, self.ending)
            self.stage.turns(4)
            if not self.everywhere() and not any(node["pool"].busy for node in self.nodes):
                return
        raise AssertionError(f"it never came to an end: {self.everywhere()}")

    def check_end(self) -> None:
        assert self.places() == Counter(dict.fromkeys(self.pushed, 1))
        failed = [entry["queuerelay"]["id"] for entry in self.stage.failed]
        assert failed.count("") == self.bad
        answered = {reply["node_id"] for reply in self.stage.replies}
        # Whoever waits is told of a failure.
        assert self.requests.intersection(failed) <= answered
        for entry in self.stage.failed:
            assert len(entry["queuerelay"]["attempts"]) <= TRIES
        for node in self.nodes:
            self.stop_pool(node)
        assert not self.clock.getDelayedCalls()


def name_of(raw: bytes) -> str:
    """The message's id, "" for those that cannot be read."""
    try:
        return decode_message(raw).id
    except MessageError:
        return ""


class Deafened:
    """In the place of the protocol of a process whose pool is dead."""

    def processExited(self, reason: object) -> None:
        pass

    processEnded = processExited


@pytest.mark.heavy
def test_whatever_happens():
    run_state_machine_as_test(
        PoolMachine, settings=settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
    )
