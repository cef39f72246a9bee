"""Every case of the corpus, cut at every byte: the same verdict, and the right one."""

import re

import pytest

from queuerelay.http.connections import ClientLimits
from queuerelay.http.head import HeadLimits
from tests.helpers.strict import CONTINUE, parse
from tests.hostile.corpus import CASES, NEXT
from tests.unit.relay.recorder import feed, recording_front, recording_site

CASES_BY_NAME = [pytest.param(case, id=case.name) for case in CASES]
#: What differs from answer to answer.
_VARIABLE = re.compile(rb"(x-request-id|date): [^\r]*\r\n", re.IGNORECASE)


def _limits(case):
    return ClientLimits(head=case.limits or HeadLimits(), max_body=case.max_body)


def _answers(verdict, case):
    """The statuses of the answers, each of them strictly formed; the last one's closing."""
    raw = verdict.raw.replace(CONTINUE, b"", 1)
    methods = [message.method for message in verdict.messages]
    refused = raw.count(b"HTTP/1.1 ") > len(methods)
    if refused:
        methods.append(
            "HEAD" if b"content-length: 0" not in raw and raw.endswith(b"\r\n\r\n") else "GET"
        )
    responses = parse(raw, methods)
    for response in responses:
        assert response.get("x-request-id" if refused else "server")
    return [response.status for response in responses], bool(responses) and responses[-1].closes


def _same(verdict):
    """What may not depend on segments: all but ids and times."""
    messages = [
        (m.method, m.target, m.version, [f for f in m.headers if f[0] != "x-request-id"], m.body)
        for m in verdict.messages
    ]
    # Who sends the body with the head is not told to go on.
    raw = verdict.raw.replace(CONTINUE, b"")
    return messages, _VARIABLE.sub(b"", raw), verdict.closed


def _check(verdict, case, *, fields=True, keeps_old=True):
    statuses, closes = _answers(verdict, case)
    seen = list(case.seen)
    assert len(verdict.messages) == len(seen) + (case.status is None and not case.closes)
    for message, expected in zip(verdict.messages, seen, strict=False):
        assert (message.method, message.target) == (expected.method, expected.target)
        assert (message.version, message.body) == (expected.version, expected.body)
        for name, value in expected.fields.items() if fields else ():
            assert message.get(name) == value
    if case.status is None:
        ends = case.closes
        if not ends:
            assert verdict.messages[-1].target == "/next"
        assert set(statuses) == {200}
    else:
        ends = case.status != 0
        assert statuses[len(seen) :] == ([case.status] if ends else [])
    assert verdict.closed is closes is ends


@pytest.mark.heavy
@pytest.mark.parametrize("case", CASES_BY_NAME)
def test_the_front_judges_it_alike_wherever_it_is_cut(case):
    factory, relay = recording_front(_limits(case))
    # Behind what is not complete a next request would be a part of it.
    data = case.data if case.status == 0 else case.data + NEXT
    whole = feed(factory, relay, data)
    _check(whole, case)
    same = _same(whole)
    for cut in range(1, len(data)):
        assert _same(feed(factory, relay, data[:cut], data[cut:])) == same, cut
    single = feed(factory, relay, *(data[n : n + 1] for n in range(len(data))))
    assert _same(single) == same


def test_a_site_judges_each_as_the_front_does():
    # In one test: each costs a collection of garbage, and these are 500.
    for case in CASES:
        try:
            _check_site(case)
        except AssertionError as error:
            raise AssertionError(case.name) from error


def test_the_corpus_has_at_least_200_cases():
    assert len({case.name for case in CASES}) == len(CASES) >= 200


def _check_site(case):
    factory, resource = recording_site(_limits(case))
    data = case.data if case.status == 0 else case.data + NEXT
    for segments in ([data], [data[n : n + 1] for n in range(len(data))]):
        verdict = feed(factory, resource, *segments)
        assert factory.receiving == 0
        front, relay = recording_front(_limits(case))
        other = feed(front, relay, *segments)
        if any(m.version == "1.0" for m in other.messages):
            # There a connection of HTTP/1.0 is not kept.
            assert verdict.messages[0].body == other.messages[0].body
            continue
        # twisted.web answers OPTIONS * by itself.
        expected = [m for m in other.messages if m.target != "*"]
        assert [(m.method, m.target, m.body) for m in verdict.messages] == [
            (m.method, m.target, m.body) for m in expected
        ]
        assert verdict.closed is other.closed
        status = re.findall(rb"HTTP/1.1 (\d+)", verdict.raw)
        assert status == re.findall(rb"HTTP/1.1 (\d+)", other.raw)
