"""Descriptors watched by an epoll within the reactor's, on real pipes."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred

from queuerelay.processes import watch as watch_module
from queuerelay.processes.watch import Watch
from tests.helpers.janitor import LoggedFailures

#: Seconds in which whatever is expected must happen.
PATIENCE = 30.0


class Pipe:
    """A pipe of which the reading end is watched; what comes is in `got`."""

    def __init__(
        self, watch: Watch, on_data: Callable[[bytes], object] = lambda data: None
    ) -> None:
        self.watch = watch
        self.on_data = on_data
        self.got: list[bytes] = []
        self.came: Deferred[None] = Deferred()
        self.lost_times = 0
        self.fd, self.writer = os.pipe()
        os.set_blocking(self.fd, False)
        watch.add(self.fd, self)

    def ready(self) -> None:
        assert self.fd != -1
        data = os.read(self.fd, 100)
        self.got.append(data)
        self.on_data(data)
        if not self.came.called:
            self.came.callback(None)

    def lost(self) -> None:
        self.lost_times += 1
        self.close()

    def close(self) -> None:
        if self.fd != -1:
            self.watch.forget(self.fd)
            os.close(self.fd)
            self.fd = -1
        if self.writer != -1:
            os.close(self.writer)
            self.writer = -1


async def soon(deferred: Deferred[None]) -> None:
    await deferred.addTimeout(PATIENCE, reactor)


async def a_turn() -> None:
    await task.deferLater(reactor, 0)
    await task.deferLater(reactor, 0)


@pytest.fixture
def pipes() -> Iterator[list[Pipe]]:
    made: list[Pipe] = []
    yield made
    for pipe in made:
        pipe.close()


async def test_what_comes_is_told(pipes: list[Pipe]) -> None:
    watch = Watch(reactor)
    pipes += [Pipe(watch), Pipe(watch)]
    os.write(pipes[1].writer, b"x")
    await soon(pipes[1].came)
    assert pipes[1].got == [b"x"]
    assert pipes[0].got == []
    os.close(pipes[0].writer)
    pipes[0].writer = -1
    await soon(pipes[0].came)
    # The other end is closed: that is told too.
    assert pipes[0].got[0] == b""


def epolls() -> int:
    """How many the reactor reads."""
    return sum(type(reader).__module__ == watch_module.__name__ for reader in reactor.getReaders())


async def test_the_reactor_has_it_while_there_is_something_to_watch(pipes: list[Pipe]) -> None:
    watch = Watch(reactor)
    before, others = len(os.listdir("/proc/self/fd")), epolls()
    pipes.append(Pipe(watch))
    assert epolls() == others + 1
    pipes[0].close()
    assert epolls() == others
    assert len(os.listdir("/proc/self/fd")) == before
    # And again.
    pipes.append(Pipe(watch))
    os.write(pipes[1].writer, b"y")
    await soon(pipes[1].came)


async def test_what_the_reactor_refuses_is_not_kept(
    pipes: list[Pipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(reactor)
    before = len(os.listdir("/proc/self/fd"))

    def full(reader: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(reactor, "addReader", full)
    reads, writes = os.pipe()
    with pytest.raises(OSError, match="full"):
        watch.add(reads, object())  # type: ignore[arg-type]
    os.close(reads)
    os.close(writes)
    monkeypatch.undo()
    assert len(os.listdir("/proc/self/fd")) == before
    pipes.append(Pipe(watch))
    os.write(pipes[0].writer, b"y")
    await soon(pipes[0].came)


async def test_what_is_watched_may_be_added_again(pipes: list[Pipe]) -> None:
    watch = Watch(reactor)
    pipes.append(Pipe(watch))
    watch.add(pipes[0].fd, pipes[0])
    os.write(pipes[0].writer, b"y")
    await soon(pipes[0].came)
    # Somebody else's is not taken over.
    with pytest.raises(FileExistsError):
        watch.add(pipes[0].fd, object())  # type: ignore[arg-type]
    pipes[0].came = Deferred()
    os.write(pipes[0].writer, b"z")
    await soon(pipes[0].came)
    assert pipes[0].got == [b"y", b"z"]


async def test_one_that_is_forgotten_in_the_same_turn_hears_nothing(pipes: list[Pipe]) -> None:
    watch = Watch(reactor)
    pipes.append(Pipe(watch, on_data=lambda data: watch.forget(pipes[1].fd)))
    pipes.append(Pipe(watch))
    os.write(pipes[0].writer, b"1")
    os.write(pipes[1].writer, b"2")
    await soon(pipes[0].came)
    await a_turn()
    assert pipes[1].got == []


async def test_events_of_one_that_was_closed_do_not_reach_who_has_its_number(
    pipes: list[Pipe],
) -> None:
    watch = Watch(reactor)
    new: list[Pipe] = []

    def replace(data: bytes) -> None:
        numbers = {pipes[1].fd, pipes[1].writer}
        pipes[1].close()
        new.append(Pipe(watch))
        assert new[0].fd in numbers, "else nothing is shown"

    pipes += [Pipe(watch, on_data=replace), Pipe(watch)]
    os.write(pipes[0].writer, b"1")
    os.write(pipes[1].writer, b"2")
    await soon(pipes[0].came)
    await a_turn()
    pipes += new
    assert pipes[1].lost_times == pipes[0].lost_times == new[0].lost_times == 0
    assert new[0].got == []
    os.write(new[0].writer, b"3")
    await soon(new[0].came)
    assert new[0].got == [b"3"]


async def test_one_that_raises_is_let_go_and_the_others_are_told(
    pipes: list[Pipe], logged_failures: LoggedFailures
) -> None:
    watch = Watch(reactor)

    def fail(data: bytes) -> None:
        raise ZeroDivisionError

    pipes += [Pipe(watch, on_data=fail), Pipe(watch)]
    for pipe in pipes:
        os.write(pipe.writer, b"z")
    await soon(pipes[1].came)
    await a_turn()
    assert pipes[0].lost_times == 1
    assert pipes[1].lost_times == 0
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


async def test_a_new_one_within_the_turn_in_which_the_last_went(pipes: list[Pipe]) -> None:
    """The descriptor of ours goes with the last, and the new one has another."""
    watch = Watch(reactor)

    def again(data: bytes) -> None:
        pipes[0].close()
        pipes.append(Pipe(watch))

    pipes.append(Pipe(watch, on_data=again))
    os.write(pipes[0].writer, b"1")
    await soon(pipes[0].came)
    await a_turn()
    os.write(pipes[1].writer, b"2")
    await soon(pipes[1].came)
    assert pipes[1].got == [b"2"]
    assert pipes[1].lost_times == 0


async def test_all_of_a_turn_is_within_one_together(pipes: list[Pipe]) -> None:
    said: list[str] = []

    @contextmanager
    def together() -> Iterator[None]:
        said.append("begin")
        yield
        said.append("end")

    watch = Watch(reactor, together)
    pipes += [Pipe(watch, on_data=lambda data: said.append(data.decode())) for _ in range(3)]
    for number, pipe in enumerate(pipes):
        os.write(pipe.writer, b"%d" % number)
    for pipe in pipes:
        await soon(pipe.came)
    await a_turn()
    assert said == ["begin", "0", "1", "2", "end"]


async def test_when_the_reactor_stops_all_are_told(pipes: list[Pipe]) -> None:
    watch = Watch(reactor)
    pipes += [Pipe(watch), Pipe(watch)]
    (reader,) = (
        one for one in reactor.getReaders() if type(one).__module__ == watch_module.__name__
    )
    reader.connectionLost(None)
    assert [pipe.lost_times for pipe in pipes] == [1, 1]
    assert epolls() == 0
