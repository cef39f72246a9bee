"""One connection to Redis that is made again for ever, and the log of its absence."""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from queuerelay.backoff import back_off
from queuerelay.wire.commands import Call, Command, load

log = logging.getLogger(__name__)

#: Seconds between two tries: the first, and the longest.
FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 5.0
#: Seconds to wait for a connection.
CONNECT_TIMEOUT: Final = 2.0
#: Seconds between two log lines about the same outage.
SAY_AGAIN: Final = 30.0


def delay_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row, half of it jitter; 0 after none."""
    if failures == 0:
        return 0.0
    jitter = random.random() / 2
    return back_off(failures, first=FIRST_DELAY, longest=LONGEST_DELAY, jitter=jitter)


def end_as_stray(pid: int) -> None:
    """End at once where this is not the process `pid`, but one that the application has forked and
    let return: it has no message of its own, and would work on with copies of our connections.
    """
    if os.getpid() != pid:
        os._exit(0)


class Outage:
    """Says that Redis is away once, and at most every 30 s, for all links of the process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._said = float("-inf")
        self._since: float | None = None
        self._announced = False

    def down(self, error: Exception) -> None:
        """A link failed."""
        now = self._clock()
        with self._lock:
            if self._since is None:
                self._since = now
            if now - self._said < SAY_AGAIN:
                return
            self._said = now
            self._announced = True
        log.warning("Redis does not do what is asked, trying on: %s", error)

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

    def __init__(self, url: str, *, role: str, outage: Outage, timeout: float) -> None:
        """`url` as `redis.Redis.from_url` takes it; `timeout` in seconds for each answer.

        `role` names the connection in CLIENT LIST.
        """
        self._client = redis.Redis.from_url(
            url,
            client_name=f"queuerelay-worker-{role}",
            # RESP2: nothing here needs more, and redis-py then leaves out its maintenance pushes.
            protocol=2,
            decode_responses=False,
            socket_timeout=timeout,
            socket_connect_timeout=CONNECT_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
            retry_on_error=[],
        )
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
            self._failed(error)
            if isinstance(error, RedisError):
                raise
            raise RedisError(f"{type(error).__name__}: {error}") from error
        refused = next((one for one in answers if isinstance(one, ResponseError)), None)
        if refused is None:
            self.failures, failed = 0, self.failures
            if failed:
                self._outage.up()
        else:
            self._failed(refused)
        return [_meant(one, answer) for one, answer in zip(asked, answers, strict=True)]

    def delay(self) -> float:
        """Seconds to wait before the next try."""
        return delay_after(self.failures)

    def close(self) -> None:
        """Close the connection; the next `send` makes a new one."""
        self._client.connection_pool.disconnect()

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return pipeline.execute(raise_on_error=False)

    def _failed(self, error: Exception) -> None:
        # Also after a refusal: a read-only or misconfigured server may not be the one that the
        # address leads to by now.
        self.close()
        self.failures += 1
        self._outage.down(error)


def _meant(asked: Command | Call[Any], answer: Any) -> Any:
    if isinstance(asked, Call) and not isinstance(answer, Exception):
        return asked.decode(answer)
    return answer
