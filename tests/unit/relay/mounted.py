"""A relay's Resource among others of a Site."""

from twisted.web.resource import Resource
from twisted.web.server import Site

from queuerelay.relay.resource import RelayResource
from tests.unit.relay.stage import Connection


class Else(Resource):
    """A resource of the application's own."""

    def render_GET(self, request):
        return b"somebody else's"


class Mounted:
    """A stage whose relay is mounted under ``/app`` of a Site."""

    def __init__(self, stage):
        self.stage = stage
        root = Resource()
        root.putChild(b"app", RelayResource(stage.relay, max_body=stage.config.max_body))
        root.putChild(b"else", Else())
        self.site = Site(root, reactor=stage.clock)

    def send(self, *data):
        connection = Connection(self.stage, self.site.buildProtocol(None))
        # Site has a proxy around its channel; the clock of the Wire is the stage's.
        self.stage.connections.append(connection)
        return connection.send(*data)
