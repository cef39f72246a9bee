"""Loopback ports: one that is free, and whether somebody listens on one."""

import os
import random
import socket

#: Each process of a test run has ports of its own: between the look and the use of one, another
#: process would find it free too.
_SHARE = 12000 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_FIRST = 20000 + _SHARE * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def free_port() -> int:
    """A loopback port that nobody listens on.

    Below the ephemeral ports: a client that retries one of those while the server is down can
    connect to itself.
    """
    while True:
        port = random.randrange(_FIRST, _FIRST + _SHARE)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
