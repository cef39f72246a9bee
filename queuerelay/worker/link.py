"""One connection to Redis that is made again for ever, and the log of its absence."""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from queuerelay.backoff import back_off
from queuerelay.wire.commands import Call, Command, load
from queuerelay.wire.server import explained
from queuerelay.wire.url import Address
from queuerelay.worker.master import MasterFinder, text_of

log = logging.getLogger(__name__)

#: Seconds between two tries: the first, and the longest.
FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 5.0
#: Longest one where there are several servers: an election is soon over.
LONGEST_DELAY_OF_SEVERAL: Final = 1.0
#: Seconds between two log lines about the same outage.
SAY_AGAIN: Final = 30.0
#: Most different lines about it in that time.
MOST_SAID: Final = 4


def delay_after(failures: int, longest: float = LONGEST_DELAY) -> float:
    """Seconds to wait after so many failures in a row, half of it jitter; 0 after none."""
    if failures == 0:
        return 0.0
    jitter = random.random() / 2
    return back_off(failures, first=FIRST_DELAY, longest=longest, jitter=jitter)


def end_as_stray(pid: int) -> None:
    """End at once where this is not the process `pid`, but one that the application has forked and
    let return: it has no message of its own, and would work on with copies of our connections.
    """
    if os.getpid() != pid:
        os._exit(0)


class Outage:
    """Says that Redis is away once, and each reason at most every 30 s, for all links of the
    process.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        #: What was said, and when.
        self._said: dict[str, float] = {}
        self._since: float | None = None
        self._announced = False

    def down(self, reason: str) -> None:
        """A link failed."""
        now = self._clock()
        with self._lock:
            if self._since is None:
                self._since = now
            self._said = {one: at for one, at in self._said.items() if now - at < SAY_AGAIN}
            if reason in self._said or len(self._said) >= MOST_SAID:
                return
            self._said[reason] = now
            self._announced = True
        log.warning("Redis does not do what is asked, trying on: %s", reason)

    def up(self) -> None:
        """A link that had failed works again."""
        with self._lock:
            since, self._since = self._since, None
            announced, self._announced = self._announced, False
        if since is not None and announced:
            log.info("Redis is back after %.1f s", self._clock() - since)


class Link:
    """One connection, for one thread.

    redis-py's own retries are off: it would repeat a claim under the same token, and the second
    message would overwrite the first.
    """

    def __init__(self, master: MasterFinder, *, role: str, outage: Outage, timeout: float) -> None:
        """`role` names the connection in CLIENT LIST; `timeout` is in seconds for each answer."""
        self._master = master
        self._role = role
        self._timeout = timeout
        #: A client of the master, and the address that it is at; None while there is none.
        self._client: redis.Redis | None = None
        self._address: Address | None = None
        self._outage = outage
        self._pid = os.getpid()
        #: Failures in a row.
        self.failures = 0

    def send(self, *asked: Command | Call[Any]) -> list[Any]:
        """One round trip. Gives an answer for each, for a `Call` what it means; what Redis refused
        has its error there.

        Raises `RedisError` where the connection failed: what took effect is then unknown.

        A process that an application has forked off, and that has come back to us, ends here.
        """
        end_as_stray(self._pid)
        commands = [one.command() if isinstance(one, Call) else one for one in asked]
        try:
            answers = self._exchange(commands)
            unknown = [i for i, one in enumerate(answers) if isinstance(one, NoScriptError)]
            if unknown:
                # A new server, or a flushed one. What it did not know, it did not do.
                self._exchange(load())
                again = self._exchange([commands[i] for i in unknown])
                for i, answer in zip(unknown, again, strict=True):
                    answers[i] = answer
        except (RedisError, OSError, UnicodeError) as error:
            self._failed(text_of(error))
            if isinstance(error, RedisError):
                raise
            raise RedisError(f"{type(error).__name__}: {error}") from error
        refused = next((i for i, one in enumerate(answers) if isinstance(one, ResponseError)), None)
        if refused is None:
            self.failures, failed = 0, self.failures
            if failed:
                self._outage.up()
        else:
            self._failed(explained(text_of(answers[refused]), commands[refused]))
        return [_meant(one, answer) for one, answer in zip(asked, answers, strict=True)]

    def delay(self) -> float:
        """Seconds to wait before the next try."""
        several = self._master.url.several
        return delay_after(self.failures, LONGEST_DELAY_OF_SEVERAL if several else LONGEST_DELAY)

    def close(self) -> None:
        """Close the connection; the next `send` makes a new one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open(self) -> redis.Redis:
        """The client of the master, connected anew where it is not there any more."""
        if self._client is not None and self._address != self._master.address:
            # Another link has found the master elsewhere.
            self.close()
        if self._client is not None:
            return self._client
        errors = []
        for place in self._master.places():
            name = f"queuerelay-worker-{self._role}"
            client = self._master.client(place, name=name, timeout=self._timeout)
            try:
                client.ping()
            except (RedisError, OSError, UnicodeError) as error:
                client.close()
                errors.append((place, error))
            else:
                self._master.found(place)
                self._client, self._address = client, self._master.address
                return client
        if len(errors) == 1:
            raise errors[0][1]
        said = "; ".join(f"{place.server}: {text_of(error)}" for place, error in errors)
        raise redis.ConnectionError(said)

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._open().pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return pipeline.execute(raise_on_error=False)

    def _failed(self, reason: str) -> None:
        # Also after a refusal: a read-only or misconfigured server may not be the one that the
        # address leads to by now.
        self.close()
        self.failures += 1
        self._outage.down(reason)


def _meant(asked: Command | Call[Any], answer: Any) -> Any:
    if isinstance(asked, Call) and not isinstance(answer, Exception):
        return asked.decode(answer)
    return answer
