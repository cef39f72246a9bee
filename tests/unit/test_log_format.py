"""The formats of both logs."""

import json
import math

import hypothesis.strategies as st
import pytest
from hypothesis import given
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.logger import LogLevel, formatEventAsClassicLogText
from twisted.python.failure import Failure

from queuerelay.log_format import Entry, access_json, event_json, event_text

NOW = 1_790_000_000.5
TEXT = st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode())


class Headers(dict):
    getRawHeaders = dict.get


def entry(headers=(), **fields):
    plain = {
        "client": IPv4Address("TCP", "203.0.113.5", 1234),
        "method": b"GET",
        "target": b"/",
        "version": b"HTTP/1.1",
        "status": 200,
        "length": 5,
        "id": b"abc",
        "end": "answered",
    }
    return Entry(**{**plain, **fields}, headers=Headers(headers))


def event(**fields):
    return {
        "log_level": LogLevel.warn,
        "log_namespace": "queuerelay.x",
        "log_time": NOW,
        "log_format": "pool {pool}: {line}",
        "pool": "p",
        "line": "hello",
        **fields,
    }


def test_a_request_as_json():
    trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {b"referer": [b"http://a/"], b"user-agent": [b"curl/8"], b"traceparent": [trace]}
    times = {"wait": 0.01249, "run": 0.34, "total": 1000.0}
    line = access_json(entry(headers, queue="high", **times), NOW)
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "type": "access",
        "time": "2026-09-21T14:13:20.500Z",
        "client": "203.0.113.5",
        "method": "GET",
        "target": "/",
        "version": "HTTP/1.1",
        "status": 200,
        "length": 5,
        "referer": "http://a/",
        "agent": "curl/8",
        "queue": "high",
        "wait": 0.012,
        "run": 0.34,
        "total": 1000.0,
        "end": "answered",
        "id": "abc",
        "traceparent": trace.decode(),
    }


def test_what_is_not_known_of_a_request_is_null():
    found = json.loads(access_json(entry(client=UNIXAddress(None), wait=math.inf), NOW))
    for name in ("client", "referer", "agent", "queue", "wait", "run", "total"):
        assert found[name] is None
    assert "traceparent" not in found


@given(target=TEXT, agent=TEXT, trace=TEXT, queue=st.text(max_size=20))
def test_nothing_of_a_client_breaks_a_line_of_json(target, agent, trace, queue):
    headers = {b"user-agent": [agent], b"traceparent": [trace]}
    line = access_json(entry(headers, target=target, queue=queue), NOW)
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    assert line[-1:] == b"\n"
    assert json.loads(line)["target"] == target.decode("utf-8", "backslashreplace")


def test_a_long_text_is_cut_in_json():
    line = access_json(entry(target=b"x" * 100_000, client="y" * 100_000), NOW)
    assert len(line) < 3000


def test_an_event_as_text_is_as_twistd_writes_it():
    assert event_text(event()).decode() == formatEventAsClassicLogText(event())
    assert event_text(event(log_format=None)) == b""
    assert b"\\udc80" in event_text(event(line="\udc80"))


def test_an_event_as_json():
    line = event_json(event(number=7, share=math.nan, raw=b"x\xff", other=object(), none=None))
    assert json.loads(line) == {
        "type": "log",
        "time": "2026-09-21T14:13:20.500Z",
        "level": "warn",
        "logger": "queuerelay.x",
        "message": "pool p: hello",
        "fields": {
            "pool": "p",
            "line": "hello",
            "number": 7,
            "share": "nan",
            "raw": "x\\xff",
            "none": None,
        },
    }


def test_an_event_of_the_old_kind_as_json():
    found = json.loads(
        event_json({"message": ("a", "b"), "time": NOW, "system": "-", "isError": 0})
    )
    assert (found["level"], found["logger"]) == ("info", "-")
    assert "fields" not in found


def test_a_failure_as_json():
    try:
        raise ValueError("at redis://u:s3cret@h")
    except ValueError:
        found = json.loads(event_json(event(log_failure=Failure(), log_level=LogLevel.critical)))
    assert found["level"] == "critical"
    assert found["traceback"].endswith("builtins.ValueError: at redis://u:***@h\n")


@pytest.mark.parametrize("write", [event_text, event_json])
def test_passwords_are_in_neither(write):
    assert b"s3cret" not in write(event(line="redis://u:s3cret@h", other="--password s3cret"))


@given(st.text(max_size=60))
def test_every_event_is_one_line_of_json(text):
    line = event_json(event(line=text))
    assert line.count(b"\n") == 1
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    json.loads(line)
