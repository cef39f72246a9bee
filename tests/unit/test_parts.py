"""A service of parts: in which order they start and end, and what each has of the drain time."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from queuerelay.config import Config, RelayConfig
from queuerelay.errors import ConfigError
from queuerelay.parts import Part, ServiceOfParts
from queuerelay.service import Daemon, PoolService
from queuerelay.testing import MemoryBroker


class Recorded(Part):
    """A part that says what is done to it, and stops when `ended` fires."""

    def __init__(self, name, done):
        self.name = name
        self.done = done
        self.ended = Deferred()
        self.wrong = None

    def open(self):
        self.done.append(f"open {self.name}")

    def check(self):
        self.done.append(f"check {self.name}")
        if self.wrong is not None:
            raise self.wrong

    def start(self):
        self.done.append(f"start {self.name}")

    async def stop(self, until):
        self.done.append(f"stop {self.name} until {until:g}")
        await self.ended
        self.done.append(f"{self.name} ended")

    def hurry(self):
        self.done.append(f"hurry {self.name}")


class Two(ServiceOfParts):
    def __init__(self, clock, done):
        config = Config(relay=RelayConfig(drain=20.0))
        super().__init__(config, reactor=clock, broker=MemoryBroker(clock=clock))
        self.first, self.second = Recorded("first", done), Recorded("second", done)
        self._parts += [self.first, self.second]


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1000.0)
    return clock


@pytest.fixture
def done():
    return []


def test_parts_start_in_order_and_end_in_reverse(clock, done):
    two = Two(clock, done)
    two.privilegedStartService()
    two.startService()
    assert done == [
        *("open first", "open second", "check first", "check second"),
        *("start first", "start second"),
    ]
    done.clear()
    ended = []
    two.stopService().addCallback(ended.append)
    assert done == ["stop second until 1020"]
    clock.advance(5.0)
    two.second.ended.callback(None)
    # The drain time is one for both.
    assert done[1:] == ["second ended", "stop first until 1020"]
    assert ended == []
    two.first.ended.callback(None)
    clock.advance(0)
    assert done[-1] == "first ended"
    assert ended == [None]
    assert clock.getDelayedCalls() == []


def test_nothing_is_started_where_one_part_cannot_be(clock, done):
    two = Two(clock, done)
    two.second.wrong = ConfigError("no")
    with pytest.raises(ConfigError):
        two.startService()
    assert done == ["check first", "check second"]
    assert not two.running


def test_a_hurry_reaches_all_parts(clock, done):
    two = Two(clock, done)
    two.hurry()
    assert done == ["hurry second", "hurry first"]


def test_a_daemon_is_made_of_what_its_roles_name(clock):
    def made(*role):
        daemon = Daemon(Config(role=role), reactor=clock)
        return [type(part).__name__ for part in daemon._parts]

    # In the order of their start: the relay, whose answers may come from these very pools, ends
    # first, and the status room shows how both end.
    assert made("relay", "pool", "status") == [
        *("BackendPart", "ListeningStatus", "PoolsPart", "ListeningRelay"),
    ]
    assert made("pool") == ["BackendPart", "PoolsPart"]
    assert made("relay") == ["BackendPart", "ListeningRelay"]
    assert made("status") == ["BackendPart", "ListeningStatus"]


def test_a_pool_service_takes_options_as_keywords(clock):
    service = PoolService.with_options(
        reactor=clock, worker="/bin/cat --id={id}", workers=3, worker_queues=["a", "b"]
    )
    assert isinstance(service, PoolService)
    (pool,) = service.pools._configs
    assert (pool.command, pool.size) == (("/bin/cat", "--id={id}"), 3)
    assert pool.queues == ("a", "b")


@pytest.mark.parametrize(
    ("options", "said"), [({"workers": 2}, "--worker beside it"), ({"wrker": "x"}, "--wrker")]
)
def test_a_pool_service_refuses_a_wrong_keyword_at_once(clock, options, said):
    with pytest.raises(ConfigError, match=said):
        PoolService.with_options(reactor=clock, **options)
