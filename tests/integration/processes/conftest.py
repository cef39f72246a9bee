"""What starts processes, in each of its ways."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from queuerelay.processes import spawner
from queuerelay.processes.spawner import Spawner
from tests.integration.processes.processes import Launching


@pytest_twisted.async_yield_fixture
async def ours() -> AsyncIterator[Spawner]:
    one = Spawner(reactor=reactor)
    assert one.native
    yield one
    await one.stop()


@pytest_twisted.async_yield_fixture(params=["twisted", "ours", "fallback", "launched"])
async def processes(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Any]:
    """Who starts processes."""
    if request.param == "twisted":
        yield reactor
        return
    if request.param == "fallback":
        monkeypatch.setattr(spawner, "supported", lambda: False)
    one = Spawner(reactor=reactor)
    if request.param == "launched":
        monkeypatch.setattr(spawner, "CROWDED", 0)
        yield Launching(one)
    else:
        yield one
    await one.stop()
