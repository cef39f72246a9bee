"""The yardstick: a bare twisted.web Site that says hello. ``python bare_site.py PORT``"""

import sys

from twisted.internet import epollreactor
from twisted.internet.endpoints import serverFromString
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

#: So long that both answers have one size: the relay adds an id to its own.
HELLO = b"hello, said by a bare site of twisted.web\n"


class Hello(Resource):
    """Says hello at every path."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        """The answer."""
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return HELLO


class Quiet(Site):
    """A Site without access log, which is the relay's default too."""

    displayTracebacks = False

    def log(self, request: Request) -> None:
        """Nothing."""


def main() -> None:
    """Serve until a signal."""
    epollreactor.install()
    from twisted.internet import reactor

    endpoint = serverFromString(reactor, f"tcp:{sys.argv[1]}:interface=127.0.0.1")
    endpoint.listen(Quiet(Hello()))
    reactor.run()


if __name__ == "__main__":
    main()
