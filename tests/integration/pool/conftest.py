"""The fixtures of the relay's `daemon` for every test in this folder, and a `place` for them."""

import pytest

from tests.helpers.daemon import daemon, relay, worker
from tests.integration.pool.place import Place

__all__ = ["daemon", "relay", "worker"]


@pytest.fixture
def place(tmp_path, fresh_valkey, daemon):
    """A directory with a server, where daemons can be started."""
    return Place(tmp_path, fresh_valkey, daemon)
