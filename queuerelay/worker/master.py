"""The place of the master, and the way into it, for all links of one worker process."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from queuerelay.errors import BrokerError, NotConnected, Refused
from queuerelay.wire.commands import Command
from queuerelay.wire.keys import Keys
from queuerelay.wire.server import greeting, names, who_is_master
from queuerelay.wire.url import Address, RedisUrl, address_of

log = logging.getLogger(__name__)

#: Seconds to wait for a connection; where there are several servers, one of them is given less.
CONNECT_TIMEOUT: Final = 2.0
HASTY: Final = 1.0
#: Seconds between two looks at the Sentinels while all is well.
LOOK_EVERY: Final = 2.0
#: Longest wait for an answer where there are several: one that is gone must not keep us.
ANSWER_OF_SEVERAL: Final = 4.0
#: How the errors begin that redis-py gives a class of their own; of a class before its base.
_CODES: Final = (
    (NoPermissionError, "NOPERM"),
    (ReadOnlyError, "READONLY"),
    (ClusterCrossSlotError, "CROSSSLOT"),
    (MasterDownError, "MASTERDOWN"),
    (ClusterDownError, "CLUSTERDOWN"),
    (MovedError, "MOVED"),
    (TryAgainError, "TRYAGAIN"),
    (AskError, "ASK"),
    (OutOfMemoryError, "OOM"),
    (BusyLoadingError, "LOADING"),
    (AuthenticationError, "WRONGPASS"),
)


def text_of(error: Exception) -> str:
    """The error as the server wrote it: redis-py takes the first word off."""
    text = str(error)
    code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
    if code is None or text.startswith(code):
        return text
    return f"{'NOAUTH' if text.startswith('Authentication required') else code} {text}"


class MasterFinder:
    """Finds the master of `url`, anew for each connection; `keys` names what its user may use.

    Used by the threads of all links. All of them are to be at one server: where one finds the
    master elsewhere, the others see it in `address`, and follow.
    """

    def __init__(self, url: RedisUrl, *, keys: Keys) -> None:
        self.url = url
        self._keys = keys
        self._lock = threading.Lock()
        #: Addresses of the servers or of the Sentinels, the one that helped last at first.
        self._order = list(url.addresses)
        #: The address of the master as it was found last; None before.
        self.address: Address | None = None

    def places(self) -> list[RedisUrl]:
        """The servers of which one should be the master, the likeliest first.

        Raises `RedisError` where no Sentinel names it.
        """
        if not self.url.several:
            return [self.url]
        if self.url.service:
            return [self.url.at(self._ask_sentinels())]
        with self._lock:
            return [self.url.at(address) for address in self._order]

    def client(self, place: RedisUrl, *, name: str, timeout: float) -> redis.Redis:
        """A client for the server at `place`, whose every connection is entered by `greeting`;
        one that will not do raises `RedisError`.
        """

        def enter(connection: Any) -> None:
            # redis-py has said user and password by then, before it says its own name.
            connection.on_connect()
            self._enter(connection, replace(place, username=None, password=None), name)

        several = self.url.several
        return _client(
            place,
            timeout=min(timeout, ANSWER_OF_SEVERAL) if several else timeout,
            connect_timeout=HASTY if several else CONNECT_TIMEOUT,
            redis_connect_func=enter,
        )

    def found(self, place: RedisUrl) -> None:
        """The master is at `place`."""
        with self._lock:
            (self.address,) = place.addresses
            if not self.url.service:
                self._prefer(self.address)

    def watch(self) -> None:
        """Look at the Sentinels now and then, where there are some, in a thread of its own: a
        master that they have replaced may go on without knowing it.
        """
        if self.url.service:
            threading.Thread(target=self._look_for_ever, name="sentinels", daemon=True).start()

    def _look_for_ever(self) -> None:
        while True:
            time.sleep(LOOK_EVERY)
            self.look()

    def look(self) -> None:
        """Ask the Sentinels; where they name another master, all links follow."""
        if self.address is None:
            return
        try:
            found = self._ask_sentinels()
        except RedisError as error:
            log.debug("%s", error)
            return
        with self._lock:
            self.address = found

    def _prefer(self, address: Address) -> None:
        if address in self._order:
            self._order.remove(address)
            self._order.insert(0, address)

    def _enter(self, connection: Any, place: RedisUrl, name: str) -> None:
        steps = greeting(place, name=name, keys=self._keys)
        try:
            commands = next(steps)
            while True:
                try:
                    answers = _exchange(connection, commands)
                except ConnectionError as error:
                    # Some proxies close the connection on what they do not know.
                    raise ConnectionError(f"{error} (it was asked {names(commands)})") from error
                commands = steps.send(answers)
        except StopIteration:
            return
        except BrokerError as error:
            raise ConnectionError(str(error.args[0])) from error

    def _ask_sentinels(self) -> Address:
        with self._lock:
            order = [*self._order]
        reasons = []
        for address in order:
            try:
                found = self._ask(self.url.sentinel_at(address))
            except (RedisError, OSError, UnicodeError) as error:
                reasons.append(f"{address}: {error}")
                continue
            with self._lock:
                self._prefer(address)
            return found
        raise ConnectionError(
            f"no Sentinel names a master {self.url.service!r}: {'; '.join(reasons)}"
        )

    def _ask(self, sentinel: RedisUrl) -> Address:
        client = _client(sentinel, timeout=HASTY, connect_timeout=HASTY)
        try:
            answer = client.execute_command(*who_is_master(self.url.service))
        finally:
            client.close()
        found = address_of(answer)
        if found is None:
            raise ConnectionError("it knows none of that name")
        return found


def _client(
    place: RedisUrl, *, timeout: float, connect_timeout: float, **options: Any
) -> redis.Redis:
    """A client that tries nothing twice, and leaves the database to `options`."""
    if place.kind == "tls":
        # redis-py 5 takes a certificate of any other host unless told.
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    return redis.Redis.from_url(
        replace(place, db=0).for_redis_py(),
        # RESP2: nothing here needs more, and redis-py then leaves out its maintenance pushes.
        protocol=2,
        decode_responses=False,
        socket_timeout=timeout,
        socket_connect_timeout=connect_timeout,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        **options,
    )


def _exchange(connection: Any, commands: Sequence[Command]) -> list[Any]:
    connection.send_packed_command(connection.pack_commands(commands))
    return [_answer(connection) for _ in commands]


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return Refused(text_of(error))
    except (BusyLoadingError, AuthenticationError, MasterDownError) as error:
        return NotConnected(text_of(error))
