"""Endpoints as operators write them."""

import os

import pytest
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor

from queuerelay.errors import ConfigError
from queuerelay.http.listening import BACKLOG, Listener, endpoint_from


def endpoint(text, reactor):
    return endpoint_from(text, option="--listen", example="tcp:8000", reactor=reactor)


@pytest.mark.parametrize(
    ("suffix", "mode", "backlog", "lock"),
    [
        ("", 0o660, BACKLOG, True),
        (":mode=600", 0o600, BACKLOG, True),
        (":mode=0666", 0o666, BACKLOG, True),
        (":666", 0o666, BACKLOG, True),
        (":backlog=5", 0o660, 5, True),
        (":lockfile=0:backlog=5:mode=777", 0o777, 5, False),
        (r"\:mode\=600", 0o660, BACKLOG, True),
    ],
)
def test_a_unix_socket_is_for_its_group_unless_it_says_more(suffix, mode, backlog, lock):
    reactor = MemoryReactor()
    Listener("x", endpoint(f"unix:/run/s{suffix}", reactor)).open(Factory())
    ((path, _, *found),) = reactor.unixServers
    assert path == "/run/s" + suffix.replace("\\", "") if "\\" in suffix else "/run/s"
    assert found == [backlog, mode, lock]


def test_behind_the_proxy_protocol_too():
    reactor = MemoryReactor()
    endpoint("haproxy:unix:/run/s", reactor).listen(Factory())
    assert reactor.unixServers[0][3] == 0o660


@pytest.mark.parametrize("mode", ["mode=9", "mode=rw", "mode=", "mode=17777", "mode=-1", "0o660"])
def test_a_mode_that_is_none(mode):
    with pytest.raises(ConfigError, match=r"--listen: .* expected an octal mode such as mode=660"):
        endpoint(f"unix:/run/s:{mode}", MemoryReactor())


def test_nobody_may_connect_before_the_mode_is_set():
    """A Unix socket is bound first, and gets its mode after that."""
    seen = []

    class Watching(MemoryReactor):
        def listenUNIX(self, *args, **kwargs):
            seen.append(os.umask(0o077))
            os.umask(seen[-1])
            return super().listenUNIX(*args, **kwargs)

    before = os.umask(0o002)
    try:
        Listener("x", endpoint("unix:/run/s", Watching())).open(Factory())
        assert os.umask(0o002) == 0o002
    finally:
        os.umask(before)
    assert seen == [0o077]
