"""The fixtures of `daemon` for every test in this folder, and a status listener's client."""

from tests.helpers.daemon import daemon, relay, worker

__all__ = ["daemon", "relay", "worker"]
