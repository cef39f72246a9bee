"""The relay against everything that may happen to it, in any order."""

import json
from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from queuerelay.wire.message import IDEMPOTENT_METHODS
from queuerelay.wire.reply import Reply, encode_frame, encode_reply
from tests.unit.relay.stage import FakeClient, Stage

SECONDS = st.sampled_from([0.0, 0.1, 0.3, 2.5, 9.0])


class Relaying(RuleBasedStateMachine):
    """Clients come and go, workers answer well and badly, Redis is lost and found."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(deadline=10.0, max_held=8, legacy_replies="responses", frame_timeout=5.0)
        self.clients: dict[str, FakeClient] = {}
        self.helds = {}
        self.methods: dict[str, str] = {}
        self.left: set[str] = set()
        self.taken: list[str] = []
        self.pushes: Counter[str] = Counter()
        self.attempts: dict[str, int] = {}
        self.frames: dict[str, int] = {}
        push = self.stage.broker.queues.push

        def note(queue, messages):
            # Not to a queue of which the relay knows that it is paused.
            assert queue not in self.stage.relay.snapshot().gates
            return push(queue, messages)

        self.stage.broker.queues.push = note  # type: ignore[method-assign]
        executed = self.stage.broker.store.push

        def count(queue, messages):
            self.pushes.update(json.loads(one)["id"] for one in messages)
            return executed(queue, messages)

        self.stage.broker.store.push = count  # type: ignore[method-assign]
        #: Whether Redis has lost what it knew of a push.
        self.forgotten = False

    @rule(method=st.sampled_from(["GET", "POST"]), broken=st.booleans())
    def come(self, method: str, broken: bool) -> None:
        if len(self.waiting()) < 8:
            client = FakeClient()
            held = self.stage.hold(client, method=method)
            self.clients[held.id], self.helds[held.id] = client, held
            self.methods[held.id] = method

    @rule(choice=st.integers(0))
    def leave(self, choice: int) -> None:
        if self.clients:
            id = list(self.clients)[choice % len(self.clients)]
            if self.waits(id):
                self.left.add(id)
            self.stage.relay.gone(self.helds[id])

    @rule()
    @precondition(lambda self: self.waiting() and not self.stage.broker.store.paused)
    def take(self) -> None:
        self.stage.turn()
        if self.stage.waiting():
            self.taken.append(self.stage.take()["node_id"])

    @rule(choice=st.integers(0), kind=st.sampled_from(["good", "twice", "bad", "legacy"]))
    @precondition(lambda self: self.taken)
    def answer(self, choice: int, kind: str) -> None:
        id = self.taken[choice % len(self.taken)]
        good = encode_reply(node_id=id, body=id.encode())
        store, inbox = self.stage.broker.store, f"queuerelay:inbox:{self.stage.relay.id}"
        if kind == "legacy":
            store.append("responses", [json.dumps({"node_id": id, "body": id}).encode()])
        elif kind == "bad":
            store.append(inbox, [good.replace(b'"status":200', b'"status":2000')])
        else:
            store.append(inbox, [good] * (1 + (kind == "twice")))

    @rule(
        choice=st.integers(0),
        places=st.lists(st.sampled_from(["first", "next", "next", "last"]), max_size=3),
        numbered=st.booleans(),
        together=st.booleans(),
    )
    @precondition(lambda self: self.taken)
    def stream(self, choice: int, places: list[str], numbered: bool, together: bool) -> None:
        alive = [id for id in self.taken if self.waits(id)] or self.taken
        id = alive[choice % len(alive)]
        frames = []
        for place in ["next" if id in self.attempts else "first", *places]:
            # Tries of several workers at one message: each has its own body, and its own numbers.
            attempt = self.attempts[id] = self.attempts.get(id, 0) + (place == "first")
            number = self.frames[id] = 0 if place == "first" else self.frames[id] + 1
            body = f"{id} {attempt}.".encode()
            n = attempt * 1000 + number if numbered else None
            if place == "first":
                frames.append(encode_reply(node_id=id, body=body, more=True, number=n))
            else:
                more = place == "next"
                frames.append(encode_frame(node_id=id, body=body, more=more, number=n))
        if together:
            self.stage.push_reply(*frames)
        else:
            for frame in frames:
                self.stage.push_reply(frame)

    @rule(choice=st.integers(0), behind=st.sampled_from([0, 1000, 2 << 20]))
    def fall_behind(self, choice: int, behind: int) -> None:
        if self.clients:
            list(self.clients.values())[choice % len(self.clients)].backlog = behind

    @rule(garbage=st.binary(max_size=20))
    def babble(self, garbage: bytes) -> None:
        store = self.stage.broker.store
        store.append(f"queuerelay:inbox:{self.stage.relay.id}", [garbage])
        store.append("responses", [garbage])

    @rule()
    def lose(self) -> None:
        self.stage.broker.disconnect()

    @rule()
    def find(self) -> None:
        self.stage.broker.reconnect()

    @rule(applied=st.booleans(), forgotten=st.sampled_from([True, False, False]))
    def drop(self, applied: bool, forgotten: bool) -> None:
        self.stage.broker.drop_next_push(applied=applied, forgotten=forgotten)
        self.forgotten |= forgotten

    @rule(refused=st.booleans())
    def fill(self, refused: bool) -> None:
        self.stage.broker.refuse("OOM command not allowed" if refused else None)

    @rule(paused=st.sampled_from([True, False, False]))
    def gate(self, paused: bool) -> None:
        store = self.stage.broker.store
        store.pause("requests", "ops") if paused else store.resume("requests")

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.stage.turn(seconds)

    def waits(self, id: str) -> bool:
        client = self.clients[id]
        answered = bool(client.told) and (client.ended or not client.writes)
        return not answered and not client.aborted and id not in self.left

    def waiting(self) -> list[str]:
        return [id for id in self.clients if self.waits(id)]

    @invariant()
    def promises(self) -> None:
        for id, client in self.clients.items():
            # 2: at most one response, and none to who has left before it began.
            assert len(client.told) <= (id not in self.left or bool(client.writes))
            # 1: its own; and where it is streamed, of one try, in order.
            if client.writes:
                parts = [part for parts in client.writes for part in parts]
                assert parts[0].startswith(id.encode())
                assert len(set(parts)) == 1
            elif client.told and isinstance(client.told[0], Reply):
                assert client.told[0].body.split()[0] == id.encode()
            # 3: each is pushed once, and what is not idempotent whatever Redis has lost.
            if not self.forgotten or self.methods[id] not in IDEMPOTENT_METHODS:
                assert self.pushes[id] <= 1
        # 6: nothing is held but what waits, and nothing waits past its deadline.
        snapshot = self.stage.relay.snapshot()
        assert snapshot.held == len(self.waiting())
        assert snapshot.held_bytes == sum(len(self.helds[id].message) for id in self.waiting())
        oldest = self.stage.clock.seconds() - 10.5
        assert all(
            self.helds[id].accepted_at >= oldest
            for id in self.waiting()
            if not self.clients[id].writes
        )
        streaming = [id for id in self.waiting() if self.clients[id].writes]
        assert snapshot.streaming == len(streaming)
        ends = sum(
            snapshot.counters.get(end, 0)
            for end in ("answered", "expired", "gone", "refused", "aborted")
        )
        assert ends == len(self.clients) - len(self.waiting())

    def teardown(self) -> None:
        # 4, 6: whatever happened, once Redis is well everybody is answered.
        stage = self.stage
        stage.broker.refuse(None)
        stage.broker.reconnect()
        stage.turn(1.0)
        known = {*stage.relay.snapshot().gates}
        assert known == {*stage.broker.store.paused}
        stage.broker.store.resume("requests")
        stage.turn(1.0)
        before = self.waiting()
        while stage.waiting():
            self.take()
        for id in before:
            if id in self.taken:
                stage.reply(id, body=id.encode())
                assert self.clients[id].told
                assert not self.waits(id)
        stage.turn(11)
        assert self.waiting() == []
        self.promises()
        done: list[None] = []
        stage.relay.drain().addCallback(done.append)
        assert done == [None]
        stage.close()
        assert stage.clock.getDelayedCalls() == []


TestRelaying = pytest.mark.heavy(Relaying.TestCase)
