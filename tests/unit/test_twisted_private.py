"""What of Twisted is used that Twisted does not promise: each name is there, and used in its place.

Where a case fails with a new Twisted, read its changes of the class that the case names, and then
the module of ours that uses the attribute.
"""

import ast
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.web import http

PACKAGE = Path(__file__).parents[2] / "queuerelay"

#: For each class of Twisted's, the private attributes and the modules that may use them.
PRIVATE = {
    http.HTTPChannel: {
        "_handlingRequest": {"http/channel.py", "http/half_closed.py", "http/kept.py"},
        "_networkProducer": {"http/channel.py", "http/half_closed.py", "http/kept.py"},
        "_protocolUpgradeForWebsockets": {"http/site.py"},
        "_respondToBadRequestAndDisconnect": {"http/channel.py"},
        "_send100Continue": {"http/channel.py"},
        "_waitingForTransport": {
            *("http/channel.py", "http/half_closed.py", "http/kept.py", "http/sender.py"),
        },
    },
    http.HTTPFactory: {
        "_logDateTime": {"http/site.py"},
        "_updateLogDateTime": {"http/site.py"},
    },
    Connection: {
        "_tempDataBuffer": {"eager.py"},
        "_tempDataLen": {"http/sender.py"},
        "_writeDisconnecting": {"eager.py"},
    },
}
NAMES = {name: places for owned in PRIVATE.values() for name, places in owned.items()}
#: Public by their names, but nowhere documented.
UNDOCUMENTED = ("TLS", "dataBuffer", "offset", "socket", "connected", "disconnecting")


@pytest.fixture
def channel():
    channel = http.HTTPChannel()
    channel.factory = http.HTTPFactory(reactor=SimpleNamespace(callLater=None))
    channel.callLater = lambda *args: SimpleNamespace(active=lambda: False)
    channel.makeConnection(StringTransport())
    return channel


@pytest.fixture
def connection():
    socket = SimpleNamespace(setblocking=lambda blocking: None, fileno=lambda: -1)
    return Connection(socket, Protocol(), SimpleNamespace())


@pytest.mark.parametrize("name", PRIVATE[http.HTTPChannel])
def test_a_channel_has(channel, name):
    assert hasattr(channel, name), f"twisted.web.http.HTTPChannel has no {name} any more"


@pytest.mark.parametrize("name", [*PRIVATE[Connection], *UNDOCUMENTED])
def test_a_connection_has(connection, name):
    assert hasattr(connection, name), f"twisted.internet.tcp.Connection has no {name} any more"


def test_a_channel_waits_for_its_transport(channel):
    assert channel._waitingForTransport is False
    channel.pauseProducing()
    assert channel._waitingForTransport is True
    channel.resumeProducing()
    assert channel._waitingForTransport is False


def test_a_channel_reads_through_its_network_producer(channel):
    assert channel._handlingRequest is False
    channel._networkProducer.pauseProducing()
    assert channel.transport.producerState == "paused"
    channel._networkProducer.resumeProducing()
    assert channel.transport.producerState == "producing"


def test_a_channel_sends_100(channel):
    channel._send100Continue()
    assert channel.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_request_that_finds_itself_malformed_calls_its_channel():
    called = "channel._respondToBadRequestAndDisconnect()"
    assert called in inspect.getsource(http.Request), f"Request does not call {called} any more"


def test_what_waits_to_be_sent_is_counted(connection):
    connection.connected = True
    connection.startWriting = lambda: None
    connection.write(b"abc")
    assert (connection._tempDataBuffer, connection._tempDataLen) == ([b"abc"], 3)
    assert (connection.dataBuffer, connection.offset) == (b"", 0)
    assert connection._writeDisconnecting is False


def modules():
    return {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}


def test_each_is_used_in_its_place_alone():
    for place, text in modules().items():
        for name, places in NAMES.items():
            if re.search(rf"\b{name}\b", text):
                assert place in places, f"{place} uses {name}; {sorted(places)} may"
    for name, places in NAMES.items():
        for place in places:
            assert name in modules()[place], f"{place} does not use {name} any more: strike it out"


def test_no_other_is_used():
    """A private name that no class of ours has is somebody else's."""
    own, used = set(), {}
    for place, text in modules().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
            elif isinstance(node, ast.Attribute):
                used[node.attr] = place
    foreign = {
        name: place
        for name, place in used.items()
        if re.match("_[A-Za-z]", name) and name not in own and name not in NAMES
    }
    assert not foreign
