"""Things that stand in Redis's place, or in its way."""

import hashlib
import random
from collections.abc import Callable
from typing import Any

import hiredis
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Factory, Protocol

from queuerelay.wire import scripts


def listen(factory: Factory) -> Any:
    """A listening port on loopback."""
    from twisted.internet import reactor

    return reactor.listenTCP(0, factory, interface="127.0.0.1")


class FakeServer(Factory):
    """Speaks RESP, and answers each command as the test says: ``answers["ROLE"] = b"-ERR no"``.

    Keys are a command, a command and its first argument (``SCRIPT LOAD``), or the name of a script
    (``push``) before ``EVALSHA``; values are raw answers, or callables that take the arguments and
    give one. None leaves it unanswered.
    """

    noisy = False

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Callable[[list[bytes]], bytes | None] | None] = {}
        self.seen: list[list[bytes]] = []
        self.links: list[_Fake] = []
        self.version = "7.4.0"
        self._port = listen(self)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port.getHost().port}/0"

    def buildProtocol(self, addr: object) -> "_Fake":
        return _Fake(self)

    def answer(self, command: list[bytes]) -> bytes | None:
        self.seen.append(command)
        name = command[0].decode().upper()
        second = f"{name} {command[1].decode().upper()}" if len(command) > 1 else name
        if name == "EVALSHA":
            second = next(one for one in scripts.NAMES if scripts.sha(one) == command[1].decode())
        said = self.answers.get(second, self.answers.get(name, self._usual(second, command)))
        return said(command) if callable(said) else said

    def _usual(self, name: str, command: list[bytes]) -> bytes | None:
        name = name.partition(" ")[0]
        if name == "HELLO":
            # So that INFO and ROLE are asked, as of servers that do not know it.
            return b"-ERR unknown command 'HELLO'\r\n"
        if name == "INFO":
            text = f"# Server\r\nredis_version:{self.version}\r\n".encode()
            return b"$%d\r\n%s\r\n" % (len(text), text)
        if name == "ROLE":
            return b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
        if name == "SCRIPT":
            return b"$40\r\n%s\r\n" % hashlib.sha1(command[2]).hexdigest().encode()
        if name == "BLMOVE":
            return None if len(command) > 2 else b"-ERR wrong number of arguments\r\n"
        if name == "fence":
            return b"*2\r\n:0\r\n$5\r\ntoken\r\n"
        return b":1\r\n" if name in ("push", "RPUSH", "SADD") else b"+OK\r\n"

    def stop(self) -> Any:
        for link in self.links:
            link.transport.abortConnection()
        return self._port.stopListening()


class _Fake(Protocol):
    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._reader = hiredis.Reader()
        #: Whether the next command is not answered (``CLIENT REPLY SKIP``).
        self._skips = False

    def connectionMade(self) -> None:
        self._server.links.append(self)

    def connectionLost(self, reason: object) -> None:
        self._server.links.remove(self)

    def dataReceived(self, data: bytes) -> None:
        self._reader.feed(data)
        while (command := self._reader.gets()) is not False:
            answer = self._server.answer(command)
            unheard, self._skips = self._skips, command[1:] == [b"REPLY", b"SKIP"]
            if answer is not None and not (unheard or self._skips):
                self.transport.write(answer)


class Proxy(Factory):
    """Passes bytes on to a port, and cuts each connection after as many as `budget` says."""

    noisy = False

    def __init__(self, port: int) -> None:
        self._target = port
        self._port = listen(self)
        self._ends: list[_End] = []
        #: Gives how many bytes a new connection may pass in either direction, None for any.
        self.budget: Callable[[], int | None] = lambda: None
        #: Connections that have been cut.
        self.cuts = 0
        #: Whether what the server says is swallowed.
        self.mute = False
        #: What the server said to clients that had left.
        self.late = b""
        self._stalled: list[_End] = []

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port.getHost().port}/0"

    def buildProtocol(self, addr: object) -> "_End":
        return _End(self, self.budget())

    def connect(self, near: "_End") -> None:
        from twisted.internet import reactor

        factory = ClientFactory.forProtocol(lambda: _End(self, near.budget, near))
        factory.noisy = False
        factory.clientConnectionFailed = lambda *_: near.cut()
        reactor.connectTCP("127.0.0.1", self._target, factory)

    def stall(self) -> None:
        """Hold back what comes from now on on the connections that there are, also when their
        clients have given them up; others pass.
        """
        self._stalled = [end for end in self._ends if not end.client_side]
        for end in self._stalled:
            end.held = []

    def release(self) -> None:
        """Pass on what was held back."""
        for end in self._stalled:
            end.release()

    def cut_clients(self) -> None:
        """Cut the connections on the clients' side; the server sees the end of those that are
        stalled when what they sent has been passed on.
        """
        for end in [one for one in self._ends if one.client_side]:
            end.transport.abortConnection()

    def cut_all(self) -> None:
        for end in [*self._ends]:
            end.cut()

    def stop(self) -> Any:
        self.cut_all()
        return self._port.stopListening()


class _End(Protocol):
    def __init__(self, proxy: Proxy, budget: int | None, near: "_End | None" = None) -> None:
        self._proxy = proxy
        self.budget = budget
        self._other = near
        self.client_side = near is None
        #: Bytes that a stalled path holds back, None where it is not stalled.
        self.held: list[bytes] | None = None
        self._early = b""
        self.lost = False

    def connectionMade(self) -> None:
        self._proxy._ends.append(self)
        if self._other is None:
            self._proxy.connect(self)
        elif self._other.lost:
            self.transport.abortConnection()
        else:
            self._other._other = self
            self.transport.write(self._other._early)

    def dataReceived(self, data: bytes) -> None:
        if self._proxy.mute and not self.client_side:
            return
        if self.budget is not None:
            data, cut = data[: self.budget], len(data) > self.budget
            self.budget -= len(data)
        else:
            cut = False
        if self._other is None:
            self._early += data
        elif self._other.lost:
            self._proxy.late += data
        else:
            self._other.pass_on(data)
        if cut:
            self._proxy.cuts += 1
            # What was passed is to arrive before the end does.
            from twisted.internet import reactor

            reactor.callLater(0, self.cut)

    def pass_on(self, data: bytes) -> None:
        """To this end's peer, now or later."""
        if self.held is None:
            self.transport.write(data)
        else:
            self.held.append(data)

    def release(self) -> None:
        """Pass on what was held back, and then the end of it."""
        held, self.held = self.held, None
        if not self.lost:
            self.transport.write(b"".join(held or ()))
            if self._other is None or self._other.lost:
                # What the server says to it is still to be seen.
                self.transport.loseWriteConnection()

    def cut(self) -> None:
        for end in (self, self._other):
            if end is not None and not end.lost:
                end.transport.abortConnection()

    def connectionLost(self, reason: object) -> None:
        self.lost = True
        self._proxy._ends.remove(self)
        if self._other is not None and not self._other.lost and self._other.held is None:
            self._other.transport.abortConnection()


def between(low: int, high: int, seed: int) -> Callable[[], int]:
    """Random budgets, the same for the same seed."""
    chance = random.Random(seed)
    return lambda: chance.randrange(low, high)


def fired(deferred: "Deferred[Any]") -> list[Any]:
    """A list that gets what `deferred` fires with."""
    got: list[Any] = []
    deferred.addBoth(got.append)
    return got
