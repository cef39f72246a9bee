"""The options for what a client may take."""

import pytest

from queuerelay.config import Config, RelayConfig, describe, load
from queuerelay.errors import ConfigError
from queuerelay.http.connections import ClientLimits
from queuerelay.http.head import HeadLimits
from queuerelay.relay.limits import client_limits


def test_they_arrive_at_the_front():
    given = {
        "max-connections": "7",
        "max-line": "300",
        "max-header": "400",
        "max-fields": "5",
        "header-time": "2",
        "body-time": "3",
        "idle": "4",
        "max-body": "6",
    }
    assert client_limits(load(None, given).relay) == ClientLimits(
        head=HeadLimits(max_line=300, max_header=400, max_fields=5),
        max_body=6,
        header_time=2.0,
        body_time=3.0,
        idle=4.0,
        max_connections=7,
    )


def test_both_have_the_same_defaults():
    assert client_limits(RelayConfig()) == ClientLimits()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max-connections", "0"),
        ("max-line", "255"),
        ("max-header", "1000000000"),
        ("max-fields", "0"),
        ("header-time", "0"),
        ("body-time", "nan"),
        ("idle", "-1"),
    ],
)
def test_what_cannot_be_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"--{name}: got {value}"):
        load(None, {name: value})


def test_a_header_section_holds_its_longest_line():
    with pytest.raises(ConfigError, match=r"--max-header: got 1000, expected at least the 2000"):
        load(None, {"max-line": "2000", "max-header": "1000"})


def test_the_start_log_shows_them():
    shown = dict(describe(Config()))
    assert shown["max-connections"] == "what the open files allow"
    assert shown["header-time"] == "10 seconds"
    assert shown["max-header"] == "32768 bytes (32 KiB)"
