"""Where the status resource listens, when it has a listener of its own."""

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamServerEndpoint

from queuerelay.http import listening
from queuerelay.http.connections import ClientLimits
from queuerelay.http.forwarded import Trust
from queuerelay.http.listening import Listener
from queuerelay.http.proxied import behind_proxy
from queuerelay.http.site import Site
from queuerelay.status.resource import MAX_BODY, StatusResource

#: What a client may take. Dashboards and people are few; probes have places of their own.
LIMITS: Final = ClientLimits(
    max_body=MAX_BODY,
    max_connections=200,
    spare=16,
    spare_paths=frozenset({b"/healthz", b"/readyz"}),
)
#: Bytes of the bodies of all requests at a time.
MAX_BODIES: Final = 16 * MAX_BODY


def status_site(resource: StatusResource, *, reactor: Any) -> Site:
    """A Site with `resource` alone, without a log: each dashboard asks once a second."""
    site = Site(
        resource,
        limits=LIMITS,
        max_bodies=MAX_BODIES,
        judge=resource.judge,
        logged=False,
        reactor=reactor,
    )
    site.noisy = False
    return site


class StatusListener:
    """One endpoint; `open` and `close` once each. Raises `ConfigError` where `text` is none.

    Behind the PROXY protocol (``haproxy:tcp:...``) only the proxies that `trust` knows are
    believed.
    """

    def __init__(self, text: str, resource: StatusResource, *, trust: Trust, reactor: Any) -> None:
        self._listener = Listener(f"--status {text}", endpoint_from(text, reactor=reactor))
        self._site = status_site(resource, reactor=reactor)
        self._factory = behind_proxy(text, self._site, trust=trust)

    def open(self) -> None:
        """Listen; may need privileges. Raises `CannotListen`."""
        self._listener.open(
            self._factory, advice=" (--status ENDPOINT for another place, --status off for none)"
        )

    def hand_over(self, user: int, group: int) -> None:
        """Give the Unix socket, where it is one, to this user and group."""
        self._listener.hand_over(user, group)

    def close(self) -> Deferred[Any]:
        """Listen no more, and end every connection."""
        self._site.connections.close()
        return self._listener.close()


def endpoint_from(text: str, *, reactor: Any) -> IStreamServerEndpoint:
    """The endpoint that `text` describes; `ConfigError` where it describes none."""
    return listening.endpoint_from(
        text, option="--status", example="tcp:8080:interface=127.0.0.1", reactor=reactor
    )
