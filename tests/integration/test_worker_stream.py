"""Streamed answers of the real worker; the tests play the relay."""

import json
import signal

import pytest

from queuerelay.wire.reply import decode_reply
from queuerelay.worker.stream import FRAME, WINDOW
from tests.helpers.waiting import PATIENCE, eventually
from tests.helpers.worker import INBOX, stage

__all__ = ["stage"]

MIB = 1024 * 1024


def frame(stage, node_id):
    """The next thing that the worker says of `node_id`."""
    return stage.reply(node_id)


def taken(stage, node_id, count):
    """Tell the worker what its client has taken, as a relay does."""
    stage.redis.set(f"queuerelay:taken:{node_id}", count, px=60_000)


def test_each_block_comes_before_the_application_goes_on(stage):
    stage.worker()
    node_id = stage.push("/stream/a/b")
    first = frame(stage, node_id)
    assert (first.opens, first.more, first.status, first.body) == (True, True, 200, b"begin ")
    assert list(first.headers) == [(b"X", b"y")]
    assert first.timing is not None
    for number, name in enumerate(("a", "b"), 1):
        # It waits for us, and we have what it said before.
        assert stage.redis.llen(INBOX) == 0
        stage.allow(name)
        part = frame(stage, node_id)
        assert (part.opens, part.more, part.body) == (False, True, name.encode())
        assert part.number == first.number + number
    last = frame(stage, node_id)
    assert (last.opens, last.more, last.body, last.number) == (False, False, b"", first.number + 3)
    stage.done()
    assert stage.redis.ttl(INBOX) > 0 or not stage.redis.exists(INBOX)


def test_a_stream_outlives_its_lease_and_its_deadline(stage):
    stage.worker("--lease", "0.5")
    stage.worker("--lease", "0.5")
    node_id = stage.push("/stream/a", life=1.0)
    first = frame(stage, node_id)
    # Longer than lease and deadline, and nobody takes it over.
    assert stage.redis.blpop([INBOX], 2) is None
    stage.allow("a")
    assert frame(stage, node_id).number == first.number + 1
    assert not frame(stage, node_id).more
    assert len(stage.runs()) == 1
    stage.done()


def test_an_application_that_fails_in_the_middle_says_so_with_a_status(stage):
    worker = stage.worker()
    node_id = stage.push("/stream/raise")
    assert frame(stage, node_id).more
    failed = stage.redis.blpop([INBOX], PATIENCE)[1]
    assert json.loads(failed)["status"] == 500
    assert "n" not in json.loads(failed)
    assert b"secret" not in failed
    assert worker.log.count("ValueError: secret detail") == 1
    stage.done()
    assert stage.reply(stage.push("/fine")).status == 201


def test_a_worker_stays_within_the_window_of_its_client(stage):
    stage.worker()
    node_id = stage.push("/stream/mib-4")
    received = 0
    while received <= WINDOW:
        received += len(frame(stage, node_id).body)
    # It may be one frame ahead, and then it waits.
    assert received <= WINDOW + FRAME
    assert stage.redis.blpop([INBOX], 1) is None
    while True:
        taken(stage, node_id, received)
        part = frame(stage, node_id)
        received += len(part.body)
        if not part.more:
            break
    assert received == 4 * MIB + len(b"begin ")
    stage.done()


def test_a_client_that_left_ends_the_application(stage):
    worker = stage.worker()
    node_id = stage.push("/stream/a/b/mib-1000")
    frame(stage, node_id)
    stage.redis.set(f"queuerelay:gone:{node_id}", 1, px=60_000)
    stage.allow("a")
    eventually((stage.directory / "closed").exists)
    stage.done()
    assert stage.redis.llen(INBOX) == 0
    assert "its client has left after" in worker.log
    assert stage.failed() == []
    assert stage.reply(stage.push("/fine")).status == 201


def test_a_client_that_leaves_while_its_worker_waits_for_it(stage):
    stage.worker()
    node_id = stage.push("/stream/mib-1000")
    received = 0
    while received <= WINDOW:
        received += len(frame(stage, node_id).body)
    stage.redis.set(f"queuerelay:gone:{node_id}", 1, px=60_000)
    eventually((stage.directory / "closed").exists)
    stage.done()


def test_a_worker_that_lost_its_message_says_nothing_more(stage):
    worker = stage.worker()
    node_id = stage.push("/stream/a/b")
    frame(stage, node_id)
    # Somebody has taken it over.
    stage.redis.delete("queuerelay:inflight:requests")
    stage.allow("a")
    eventually((stage.directory / "closed").exists)
    assert stage.reply(stage.push("/fine")).status == 201
    assert "the lease was lost" in worker.log


def test_killed_in_the_middle_the_next_try_has_other_numbers(stage):
    first = stage.worker("--lease", "1")
    node_id = stage.push("/stream/a/b")
    one = frame(stage, node_id)
    stage.allow("a")
    assert frame(stage, node_id).number == one.number + 1
    first.signal(signal.SIGKILL)
    first.exit()
    stage.allow("b")
    stage.worker("--lease", "1")
    again = frame(stage, node_id)
    assert (again.opens, again.more, again.body) == (True, True, b"begin ")
    assert again.number not in range(one.number - 10, one.number + 10)


def test_lost_connections_lose_no_frame_and_repeat_only_what_has_a_number(stage):
    stage.worker()
    node_id = stage.push("/stream/mib-2")
    bodies: dict[int, bytes] = {}
    kills = 0
    while True:
        raw = stage.redis.blpop([INBOX], PATIENCE)[1]
        part = decode_reply(raw)
        assert part.number is not None
        assert bodies.setdefault(part.number, part.body) == part.body
        if not part.more:
            break
        taken(stage, node_id, sum(map(len, bodies.values())))
        if len(bodies) % 8 == 0:
            kills += 1
            for client in stage.redis.client_list():
                if client["name"] == "queuerelay-worker-main":
                    stage.redis.client_kill_filter(_id=client["id"])
    assert kills >= 3
    assert sorted(bodies) == list(range(min(bodies), min(bodies) + len(bodies)))
    whole = b"".join(bodies[number] for number in sorted(bodies))
    assert whole == b"begin " + b"x" * 2 * MIB
    stage.done()


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_head_of_a_stream_is_one_reply(stage, method):
    stage.worker()
    node_id = stage.push("/stream", method=method)
    reply = frame(stage, node_id)
    assert (type(reply).__name__ == "Frame") == (method == "GET")
    eventually((stage.directory / "closed").exists)
    stage.done()
