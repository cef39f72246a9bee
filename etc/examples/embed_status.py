"""The status page inside a Twisted site of your own: run with ``twistd -ny embed_status.py``.

It shows every relay and pool on that Redis, and is read-only here. This site serves strangers under
its own name, so whoever may see ``/ops/`` is for the site to decide; here it is those who ask this
very machine.
"""

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from queuerelay.service import StatusService


class Hello(Resource):
    def render_GET(self, request: Request) -> bytes:
        return b"hello from this process\n"


application = Application("my-site")
status = StatusService.with_options(reactor=reactor, redis="localhost")
status.setServiceParent(application)

root = Resource()
root.putChild(b"hello", Hello())
root.putChild(b"ops", status.resource)
endpoint = serverFromString(reactor, "tcp:8081:interface=127.0.0.1")
StreamServerEndpointService(endpoint, Site(root)).setServiceParent(application)
