"""The fixtures of `daemon` for every test in this folder."""

from tests.helpers.daemon import daemon, relay, worker

__all__ = ["daemon", "relay", "worker"]
