"""The fixtures of the relay's `daemon` for every test in this folder."""

from tests.helpers.daemon import daemon, relay, worker

__all__ = ["daemon", "relay", "worker"]
