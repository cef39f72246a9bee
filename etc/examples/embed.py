"""The relay inside a Twisted application of your own: run with ``twistd -ny embed.py``.

``/app/...`` is answered by workers, over the queue; everything else by resources in this process.
"""

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import Resource
from twisted.web.server import Request

from queuerelay.service import RelayService


class Hello(Resource):
    def render_GET(self, request: Request) -> bytes:
        return b"hello from this process\n"


application = Application("my-site")
relay = RelayService.with_options(reactor=reactor, redis="localhost", deadline=20)
relay.setServiceParent(application)

root = Resource()
root.putChild(b"hello", Hello())
root.putChild(b"app", relay.resource)
endpoint = serverFromString(reactor, "tcp:8000")
StreamServerEndpointService(endpoint, relay.site(root)).setServiceParent(application)
