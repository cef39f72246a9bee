"""Frames on their way, with a Redis and a time that are the test's."""

import json
from types import SimpleNamespace

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from queuerelay.wire.claim import Claim
from queuerelay.wire.keys import Keys
from queuerelay.worker import stream as module
from queuerelay.worker.stream import FRAME, PATIENCE, WINDOW, ReplyStream, StreamStopped
from tests.unit.worker.requests import NODE_ID, request


class FakeLimit:
    """Whose turn it is."""

    def __init__(self):
        self.running = True
        self.begun = False
        self.over = False

    def run(self, *, begun):
        self.running, self.begun = True, begun

    def rest(self):
        self.running = False


class Redis:
    """What `Link.send` gives, and a clock that only waiting moves."""

    def __init__(self):
        self.now = 1000.0
        self.frames = []
        self.answer = [1, 0]
        self.down = 0
        #: Whether the client takes all that is sent, at once.
        self.takes = True
        self.looks = 0
        self.limit = FakeLimit()

    def send(self, call):
        assert not self.limit.running, "the application's time runs while it waits for us"
        if self.down:
            self.down -= 1
            raise RedisConnectionError("away")
        _, frame, _ = call.args
        if frame:
            self.frames.append(json.loads(frame))
        else:
            self.looks += 1
        if self.takes and self.answer[0] == 1:
            self.answer = [1, sum(len(one.get("body", "")) for one in self.frames)]
        return [call.decode(self.answer)]

    def delay(self):
        return 1.0

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def redis(monkeypatch):
    one = Redis()
    time = SimpleNamespace(monotonic=lambda: one.now, sleep=one.sleep)
    monkeypatch.setattr(module, "time", time)
    return one


@pytest.fixture
def stream(redis):
    claim = Claim(queue="q", token="t", message=b"", since=0.0, holder="test:1")
    return ReplyStream(
        Keys(), redis, request(), claim=claim, timing={"wait": 0.5}, limit=redis.limit
    )


def test_frames_are_numbered_from_the_first_on(stream, redis):
    assert not stream.begun
    stream.begin(201, [("X", "y")], b"one")
    stream.send(b"two")
    last = json.loads(stream.last())
    first, second = redis.frames
    number = first.pop("n")
    assert first == {
        "node_id": NODE_ID,
        "status": 201,
        "headers": [["X", "y"]],
        "body": "one",
        "body_encoding": "utf-8",
        "timing": {"wait": 0.5},
        "more": True,
    }
    assert (second["body"], second["more"], second["n"]) == ("two", True, number + 1)
    assert last == {"node_id": NODE_ID, "more": False, "n": number + 2}
    assert stream.size == 6


def test_what_is_large_goes_out_in_several_frames(stream, redis):
    data = b"x" * (2 * FRAME + 1)
    stream.begin(200, [], data)
    assert [len(one["body"]) for one in redis.frames] == [FRAME, FRAME, 1]
    numbers = [one["n"] for one in redis.frames]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert stream.size == len(data)


@pytest.mark.parametrize(("state", "why"), [(0, "the lease was lost"), (2, "its client has left")])
def test_a_stream_that_is_not_wanted_stays_stopped(stream, redis, state, why):
    stream.begin(200, [], b"one")
    redis.answer = [state, 0]
    for _ in range(2):
        with pytest.raises(StreamStopped, match=why):
            stream.send(b"two")
    assert stream.stopped == why
    # It was asked once.
    assert len(redis.frames) == 2


def test_a_frame_is_pushed_until_redis_has_answered(stream, redis):
    redis.down = 20
    stream.begin(200, [], b"one")
    assert len(redis.frames) == 1
    redis.down = 1000
    with pytest.raises(StreamStopped, match="Redis"):
        stream.send(b"two")
    assert redis.now < 1000 + 2 * PATIENCE


def test_it_waits_for_a_client_that_is_behind(stream, redis):
    redis.takes = False
    stream.begin(200, [], b"x" * WINDOW)
    assert redis.looks == 0

    def sleep(seconds):
        redis.now += seconds
        if redis.now > 1100:
            redis.answer = [1, FRAME]

    redis.sleep = sleep
    module.time.sleep = sleep
    stream.send(b"y" * FRAME)
    assert 1100 < redis.now < 1101
    assert redis.looks > 100


def test_a_client_that_takes_nothing_is_given_up(stream, redis):
    redis.takes = False
    with pytest.raises(StreamStopped, match="nobody took anything"):
        stream.begin(200, [], b"x" * 2 * WINDOW)
    assert PATIENCE < redis.now - 1000 < PATIENCE + 1


def test_events_for_a_relay_that_is_gone_are_given_up_and_others_never(stream, redis):
    stream.begin(200, [], b"event")
    for _ in range(100):
        # Longer than the patience between two, and each is taken.
        redis.now += PATIENCE + 1
        stream.send(b"event")
    redis.takes = False
    began = redis.now

    def go_on():
        while redis.now < began + 10 * PATIENCE:
            redis.now += 10
            stream.send(b"event")

    with pytest.raises(StreamStopped, match="nobody took anything"):
        go_on()
    assert PATIENCE < redis.now - began <= PATIENCE + 30


def test_the_relay_is_late_with_its_word_after_a_long_silence(stream, redis):
    redis.takes = False
    stream.begin(200, [], b"event")
    for number in range(1, 100):
        redis.now += 10 * PATIENCE
        stream.send(b"event")
        # What it says when it got a frame is known with the next one.
        redis.answer = [1, 5 * number]
    assert not stream.stopped


def test_nothing_to_send_is_a_look_at_most_once_a_second(stream, redis):
    for _ in range(10):
        stream.look()
    assert redis.looks == 0, "most who have nothing yet have something soon"
    redis.now += 1.0
    for _ in range(10):
        stream.look()
    assert redis.looks == 1
    assert redis.frames == []
    assert (redis.limit.running, redis.limit.begun) == (True, False)
    redis.now += 1.0
    redis.answer = [2, 0]
    with pytest.raises(StreamStopped, match="its client has left"):
        stream.look()


def test_a_look_after_the_deadline_ends_it_unless_the_answer_has_begun(stream, redis):
    redis.limit.over = True
    redis.now += 1.0
    with pytest.raises(StreamStopped, match="its deadline has passed"):
        stream.look()


def test_an_answer_that_has_begun_has_no_deadline(stream, redis):
    stream.begin(200, [], b"one")
    redis.limit.over = True
    redis.now += 1.0
    stream.look()
    assert (redis.looks, redis.limit.begun) == (1, True)
