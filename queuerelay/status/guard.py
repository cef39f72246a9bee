"""Whether a request may act, before anything is done for it, and what it may see.

To act, in this order, so that no answer tells more than the one before it:

1. Without a file of credentials nobody may: 403.
2. What a browser sends for another site's page is refused, with whatever credentials it attaches:
   403. ``Sec-Fetch-Site`` must be ``same-origin`` where it is there (every present browser sends
   it), an ``Origin`` must name the host that was asked (RFC 6454), and without either of them only
   a bearer token counts, which no browser attaches by itself: a program that has a name and a
   password instead sends an ``Origin``.
3. Who has tried too many wrong credentials waits: 429. Who is an address, of IPv6 its /64: a host
   has all of that. Behind a proxy all have the proxy's, so one can make the others wait; with the
   PROXY protocol (``haproxy:tcp:...``) of a trusted proxy each has its own.
4. Without valid credentials: 401; with some that are not for this: 403.

To read is for everybody, unless it was said that it needs credentials as well; then 3 and 4 hold.
Where it does not, ids of messages are whole for those alone who have them. Wrong ones are counted
there too: else reading would tell whoever guesses, as often as he likes.
"""

import ipaddress
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from twisted.internet.interfaces import IReactorTime

from queuerelay.status.credentials import READ, Credential, Credentials
from queuerelay.status.route import StatusRequest

#: Wrong credentials that one address may give within `WINDOW` seconds.
TRIES: Final = 10
WINDOW: Final = 60.0
#: Addresses that are remembered.
_ADDRESSES: Final = 1024

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_CHALLENGE: Final = 'Bearer realm="queuerelay", Basic realm="queuerelay", charset="UTF-8"'
#: Chromium takes all of one field for its first challenge, and asks nobody for a bearer token.
_FOR_PEOPLE: Final = 'Basic realm="queuerelay", charset="UTF-8"'


class Denied(Exception):
    """A request may not act: an HTTP status, a line for people, and fields for the answer."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] = NO_HEADERS) -> None:
        super().__init__(f"{status} {text}")
        self.status = status
        self.text = text
        self.headers = headers


class Guard:
    """Lets those act whom `credentials` know; None for nobody. `private` says that reading needs
    credentials, too.
    """

    def __init__(
        self, credentials: Credentials | None, *, clock: IReactorTime, private: bool = False
    ) -> None:
        self._credentials = credentials
        #: Whether reading needs credentials.
        self.private = private
        self._clock = clock
        #: Clock seconds of wrong credentials, by address, the latest address last.
        self._wrong: dict[str, deque[float]] = {}

    @property
    def writable(self) -> bool:
        """Whether anybody may act at all."""
        return self._credentials is not None

    def let(self, ask: StatusRequest, scope: str) -> str:
        """The name of who sends `ask` and may do what `scope` is for; raises `Denied`."""
        if self._credentials is None:
            raise Denied(403, "read-only: there is no --status-credentials file")
        authorization = ask.headers.get("authorization", "")
        if not _same_site(ask, authorization):
            raise Denied(403, "not from another site's page")
        return self._allowed(ask, scope).name

    def let_read(self, ask: StatusRequest) -> None:
        """Return where `ask` may read; raises `Denied`."""
        if self.private:
            self._allowed(ask, READ)

    def trusts(self, ask: StatusRequest) -> bool:
        """Whether `ask` may see whole ids."""
        try:
            return bool(ask.headers.get("authorization")) and bool(self._allowed(ask, READ))
        except Denied:
            return False

    def _allowed(self, ask: StatusRequest, scope: str) -> Credential:
        """Who sends `ask`, where that is somebody with `scope`."""
        authorization = ask.headers.get("authorization", "")
        whose = _whose(ask.client)
        left = self._left(whose)
        if left:
            raise Denied(429, "too many wrong credentials", {"Retry-After": str(int(left) + 1)})
        who = None
        if authorization and self._credentials is not None:
            who = self._credentials.who(authorization)
        if who is None:
            if authorization:
                self._note(whose)
            challenge = _FOR_PEOPLE if "text/html" in ask.headers.get("accept", "") else _CHALLENGE
            raise Denied(401, "credentials are needed", {"WWW-Authenticate": challenge})
        self._wrong.pop(whose, None)
        if scope not in who.scopes:
            raise Denied(403, f"these credentials are not for this: it needs the scope {scope}")
        return who

    def _left(self, address: str) -> float:
        """Seconds until the address may try again."""
        tries, now = self._wrong.get(address), self._clock.seconds()
        while tries and tries[0] <= now - WINDOW:
            tries.popleft()
        return tries[0] + WINDOW - now if tries and len(tries) >= TRIES else 0.0

    def _note(self, address: str) -> None:
        tries = self._wrong.pop(address, deque(maxlen=TRIES))
        while len(self._wrong) >= _ADDRESSES:
            del self._wrong[next(iter(self._wrong))]
        tries.append(self._clock.seconds())
        self._wrong[address] = tries


def _whose(client: str) -> str:
    """The addresses that count as one host's: of IPv6 a /64 network."""
    try:
        found = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if isinstance(found, ipaddress.IPv4Address):
        return client
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), 64), strict=False))


def _same_site(ask: StatusRequest, authorization: str) -> bool:
    site, origin = ask.headers.get("sec-fetch-site"), ask.headers.get("origin")
    if site is not None and site != "same-origin":
        return False
    if origin is not None:
        scheme, _, origin_host = origin.lower().partition("://")
        # Either scheme will do: what is in front of us may have ended the TLS.
        default = {"http": ":80", "https": ":443"}.get(scheme)
        host = ask.headers.get("host", "").lower()
        return default is not None and origin_host == host.removesuffix(default)
    return site is not None or not authorization or authorization.lower().startswith("bearer ")
