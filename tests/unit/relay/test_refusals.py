"""The log of refusals: the first at once, the others as a number."""

from twisted.internet.task import Clock

from queuerelay.errors import BadRequest, BodyTooLarge, NoReply, QueueFull
from queuerelay.relay.refusals import QUIET, RefusalLog


def test_the_first_is_told_at_once_and_the_others_as_one_line(log_lines):
    clock = Clock()
    log = RefusalLog(clock)
    for number in range(100):
        log.add(QueueFull(f"number {number}"))
    log.add(NoReply())
    assert log_lines() == [
        "answered 503 (queue-limit): the queue is full: number 0",
        "answered 504 (deadline-started): no reply came before the deadline",
    ]
    clock.advance(QUIET - 0.1)
    log.sweep(clock.seconds())
    assert len(log_lines()) == 2
    clock.advance(0.2)
    log.sweep(clock.seconds())
    assert log_lines()[2:] == [
        "99 more of (queue-limit) in 10 s, the last: the queue is full: number 99"
    ]
    assert log.counts == {"queue-limit": 100, "deadline-started": 1}


def test_what_goes_on_is_told_now_and_then_and_what_is_over_is_forgotten(log_lines):
    clock = Clock()
    log = RefusalLog(clock)
    for _ in range(30):
        log.add(NoReply())
        clock.advance(1)
        log.sweep(clock.seconds())
    assert len(log_lines()) == 4
    clock.advance(2 * QUIET)
    log.sweep(clock.seconds())
    clock.advance(2 * QUIET)
    log.sweep(clock.seconds())
    before = len(log_lines())
    log.add(NoReply("again"))
    assert log_lines()[before:] == [
        "answered 504 (deadline-started): no reply came before the deadline: again"
    ]


def test_a_clients_mistakes_are_counted_and_not_told(log_lines):
    clock = Clock()
    log = RefusalLog(clock)
    for refusal in (BadRequest("x"), BodyTooLarge("y"), BadRequest("z")):
        log.add(refusal)
    clock.advance(2 * QUIET)
    log.sweep(clock.seconds())
    assert log_lines() == []
    assert log.counts == {"malformed": 2, "body-too-large": 1}


def test_at_the_end_everything_is_told(log_lines):
    clock = Clock()
    log = RefusalLog(clock)
    for number in range(3):
        log.add(NoReply(str(number)))
    clock.advance(1)
    log.sweep(clock.seconds(), last=True)
    log.sweep(clock.seconds() + 2 * QUIET, last=True)
    assert log_lines()[1:] == [
        "2 more of (deadline-started) in 1 s, the last: no reply came before the deadline: 2"
    ]


def test_foreign_text_is_a_field_and_never_the_format(log_lines):
    RefusalLog(Clock()).add(NoReply("{0} {log_level} {x.__class__}"))
    assert "{0} {log_level} {x.__class__}" in log_lines()[0]
