"""Waiters for one event, each with a Deferred."""

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Waiters(Generic[T]):
    """The waiters for one event; `fire` and `fail` end the wait of all who wait by then.

    A wait may be cancelled. Whoever begins to wait while others are told waits for the next event.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Deferred[T], None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self) -> Deferred[T]:
        """Fires with the event; may be cancelled."""
        waiter: Deferred[T] = Deferred(self._forget)
        self._waiting[waiter] = None
        return waiter

    def fire(self, value: T) -> None:
        """The event has come, with `value`."""
        self._tell(lambda waiter: waiter.callback(value))

    def fail(self, reason: Failure | BaseException) -> None:
        """The event will not come, for this reason."""
        self._tell(lambda waiter: waiter.errback(reason))

    def _tell(self, tell: Callable[[Deferred[T]], None]) -> None:
        for waiter in list(self._waiting):
            # One that was told before may have cancelled it.
            if waiter in self._waiting:
                del self._waiting[waiter]
                tell(waiter)

    def _forget(self, waiter: Deferred[T]) -> None:
        self._waiting.pop(waiter, None)
