"""The scripts as calls: what is sent for each, and what its answer means."""

import re

import pytest

from queuerelay.wire import commands, scripts
from queuerelay.wire.claim import Claim
from queuerelay.wire.dead_letter import Requeue
from queuerelay.wire.keys import Keys
from queuerelay.wire.recovery import Drop, Fail, Retry

KEYS = Keys(prefix="p:")
LEASE = ["p:inflight:a", "p:leases:a", "p:meta:a"]
#: A call of each script, with all that it may be given.
CALLS = [
    commands.ack(KEYS, "a", "t", reply_to="l", reply=b"r"),
    commands.beat(KEYS, "n", b"{}", life=1.0, inbox_life=2.0, silence=3.0),
    commands.bury(KEYS, "n", silence=1.0, inbox_life=2.0, legacy="l"),
    commands.claim(KEYS, ["a", "b"], ["t"], holder="h", lease=1.0),
    commands.delay(KEYS, "a", "t", b"m", seconds=1.0),
    commands.depth(KEYS, "a"),
    commands.fail(KEYS, "a", "t", b"e", reply_to="l", reply=b"r"),
    commands.failures(KEYS, 0, 1, newest=True, room=2),
    commands.fence("f", "t"),
    commands.frame(KEYS, "a", "t", "p:inbox:n", "n", b"f"),
    commands.move("l", "m", 1),
    commands.pause(KEYS, "a", b'"who"'),
    commands.peek("l", 0, 1, 2, largest=3),
    commands.promote(KEYS, ["a"], most=1),
    commands.prune(KEYS, 1, 2, 3.0),
    commands.push("l", "f", "t", 2, [1], [b"m"]),
    commands.reap(KEYS, "a", "t", lease=1.0, most=1),
    commands.renew(KEYS, "a", ["t"], lease=1.0),
    commands.requeue(KEYS, b"e", Requeue(queue="q", message=b"m")),
    commands.retry(KEYS, "a", "t", b"m"),
    commands.trim("l", "f", "t", 1),
]
BY_NAME = {call.script: call for call in CALLS}


def test_there_is_a_call_for_each_script():
    assert [call.script for call in CALLS] == [*scripts.NAMES]


@pytest.mark.parametrize("call", CALLS, ids=scripts.NAMES)
def test_a_script_gets_the_keys_and_arguments_that_it_looks_at(call):
    source = scripts.source(call.script)
    for name, given in (("KEYS", call.keys), ("ARGV", call.args)):
        used = {int(number) for number in re.findall(rf"{name}\[(\d+)\]", source)}
        assert used <= {*range(1, len(given) + 1)}
        # A lease's keys always come together; else it looks at no others.
        if "#" + name not in source and (call.script, name) != ("renew", "KEYS"):
            assert len(used) == len(given)


def test_a_call_is_a_command_by_the_name_or_with_the_text_of_its_script():
    call = commands.renew(KEYS, "a", ["t"], lease=1.5)
    name, sha, *rest = call.command()
    assert name == "EVALSHA"
    assert re.fullmatch(r"[0-9a-f]{40}", str(sha))
    assert rest == [3, *LEASE, 1500, "t"]
    assert call.whole() == ("EVAL", scripts.source("renew"), *rest)
    assert [command[2] for command in commands.load()] == [*map(scripts.source, scripts.NAMES)]


@pytest.mark.parametrize(("reply_to", "most"), [("p:inbox:x", 0), ("queuerelay:results:x", 1000)])
def test_what_nobody_reads_vanishes_and_a_jobs_list_is_bounded(reply_to, most):
    ack = commands.ack(KEYS, "a", "t", reply_to=reply_to, reply=b"r")
    assert ack[1:3] == ([*LEASE, reply_to], ["t", b"r", 3600, most])
    fail = commands.conclude(KEYS, "a", "t", Fail(entry=b"e", reply_to=reply_to, reply=b"r"))
    assert fail[1:3] == ([*LEASE, "resque:failed", reply_to], ["t", b"e", b"r", 3600, most])
    assert commands.frame(KEYS, "a", "t", reply_to, "n", b"f").args == ["t", b"f", 3600]


def test_ends_without_a_reply():
    assert commands.conclude(KEYS, "a", "t", Drop())[1:3] == (LEASE, ["t"])
    retry = commands.conclude(KEYS, "a", "t", Retry(message=b"m"))
    assert retry[1:3] == ([*LEASE, "resque:queue:a"], ["t", b"m"])
    fail = commands.conclude(KEYS, "a", "t", Fail(entry=b"e"))
    assert fail[1:3] == ([*LEASE, "resque:failed"], ["t", b"e"])


def test_what_was_claimed():
    call = commands.claim(KEYS, ["a", "b"], ["t1", "t2", "t3"], holder="h:1", lease=1.0)
    assert call.args == [1000, "h:1", "a", "b", "t1", "t2", "t3"]
    assert call.decode([5000]) == []
    assert call.decode([5500, 1, b"one", 2, b"two"]) == [
        Claim(queue="a", token="t1", message=b"one", since=5.5, holder="h:1"),
        Claim(queue="b", token="t2", message=b"two", since=5.5, holder="h:1"),
    ]


@pytest.mark.parametrize(
    ("meta", "since", "holder"),
    [
        (b"1995000 other:7", 1995.0, "other:7"),
        (b"", 0.0, ""),
        (b"soon h", 0.0, "h"),
        (b"\xc2\xb2 h", 0.0, "h"),
        (b"\xff", 0.0, ""),
    ],
)
def test_what_was_taken_over_whoever_wrote_it(meta, since, holder):
    (claim,) = BY_NAME["reap"].decode([[b"t1", b"m", meta]])
    assert claim == Claim(queue="a", token="t1", message=b"m", since=since, holder=holder)


@pytest.mark.parametrize(
    ("script", "answer", "means"),
    [
        ("ack", 1, True),
        ("ack", 0, False),
        ("renew", [1, 0], [True, False]),
        ("depth", [3, b"1.5", 2, 1], (3, 1.5, 2, 1)),
        ("depth", [0, None, 0, 0], (0, None, 0, 0)),
        ("depth", [1, b"1.2.3", 0, 0], (1, None, 0, 0)),
        ("failures", [7, b"x", b"y"], (7, [b"x", b"y"])),
        ("beat", [b"n", b"\xff"], ["n", "\ufffd"]),
        ("frame", [1, 5], (1, 5)),
    ],
)
def test_what_other_answers_mean(script, answer, means):
    assert BY_NAME[script].decode(answer) == means


def test_a_dead_letter_goes_away_or_back():
    assert commands.requeue(KEYS, b"e")[1:3] == (["resque:failed"], [b"e"])
    back = BY_NAME["requeue"]
    assert back[1:3] == (["resque:failed", "resque:queue:q", "resque:queues"], [b"e", b"m", "q"])
