"""What a Redis drops, and what it has after a restart."""

import pytest

from queuerelay.errors import Refused
from queuerelay.wire.storage import Storage, ask, of
from queuerelay.wire.url import parse

NOPERM = Refused("NOPERM User app has no permissions to run the 'info' command")


def info(**fields):
    told = {
        "used_memory": "1000",
        "maxmemory": "0",
        "maxmemory_policy": "noeviction",
        "aof_enabled": "0",
        "rdb_last_bgsave_status": "ok",
        "aof_last_write_status": "ok",
        **fields,
    }
    return "".join(f"{name}:{value}\r\n" for name, value in told.items()).encode()


@pytest.mark.parametrize("address", ["localhost", "redis://:p@h", "redis://default:p@h"])
def test_what_is_asked(address):
    assert ask(parse(address))[1:] == [("CONFIG", "GET", "save")]


def test_a_user_with_a_name_asks_for_no_configuration():
    assert ask(parse("redis://app:p@h")) == [("INFO", "memory", "persistence")]


def test_memory():
    assert (of([info()]).used, of([info()]).most) == (1000, None)
    assert of([info(maxmemory="5000")]).most == 5000
    assert of([info(used_memory="x", maxmemory="-1")]) == of([info(used_memory="", maxmemory="")])


@pytest.mark.parametrize("nothing", [[], [NOPERM], [NOPERM, NOPERM], [None, None], [b"", []], [5]])
def test_what_is_not_told_is_not_known(nothing):
    assert of(nothing) == Storage()
    assert Storage().complaints() == []


@pytest.mark.parametrize(
    ("aof", "save", "kept"),
    [
        ("1", [b"save", b""], "aof"),
        ("1", NOPERM, "aof"),
        ("0", [b"save", b"3600 1 300 100"], "rdb"),
        ("0", [b"save", b""], "none"),
        ("0", [], None),
        ("0", NOPERM, None),
        ("?", [b"save", b""], None),
    ],
)
def test_what_survives_a_restart(aof, save, kept):
    assert of([info(aof_enabled=aof), save]).persistence == kept


@pytest.mark.parametrize(
    ("policy", "limit", "lost"),
    [
        ("noeviction", "5000", None),
        ("noeviction", "0", None),
        ("allkeys-lru", "0", None),
        ("", "5000", None),
        ("allkeys-lru", "5000", "whole queues and replies"),
        ("allkeys-random", "5000", "whole queues and replies"),
        ("volatile-ttl", "5000", "drops replies without a word"),
        ("a-new-one", "5000", "whole queues and replies"),
    ],
)
def test_eviction(policy, limit, lost):
    found = of([info(maxmemory_policy=policy, maxmemory=limit)])
    assert found.evicts == (lost is not None)
    if lost is None:
        assert found.complaints() == []
    else:
        ((code, text),) = found.complaints()
        assert code == "redis-eviction"
        assert lost in text
        assert f"maxmemory-policy is {policy}" in text
        assert "CONFIG SET maxmemory-policy noeviction" in text


@pytest.mark.parametrize("field", ["rdb_last_bgsave_status", "aof_last_write_status"])
def test_a_disk_that_cannot_be_written(field):
    ((code, _),) = of([info(**{field: "err"})]).complaints()
    assert code == "redis-saving"
