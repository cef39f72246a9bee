"""Loopback ports: one that is free, and whether somebody listens on one."""

import random
import socket


def free_port() -> int:
    """A loopback port that nobody listens on.

    Below the ephemeral ports: a client that retries one of those while the server is down can
    connect to itself.
    """
    while True:
        port = random.randrange(20000, 32000)
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
