"""The way into a server of Redis: its endpoint, and what is asked of it before it is used."""

from pathlib import Path
from typing import Final, cast

from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.python.failure import Failure

from queuerelay.broker.redis.protocol import RedisProtocol, checked
from queuerelay.errors import BrokerError, ConnectionDropped, NotConnected, Unusable
from queuerelay.wire.commands import load
from queuerelay.wire.keys import Keys
from queuerelay.wire.server import greeting, names
from queuerelay.wire.url import RedisUrl

#: Seconds that making a connection may take, and preparing it again.
CONNECT_BOUND: Final = 5.0


def connect(
    url: RedisUrl, reactor: IReactorTime, *, bound: float = CONNECT_BOUND
) -> Deferred[RedisProtocol]:
    """Connect to the server of `url` within `bound` seconds; may be cancelled."""
    factory = Factory.forProtocol(lambda: RedisProtocol(reactor))
    factory.noisy = False
    try:
        connecting = _endpoint(url, reactor, bound).connect(factory)
    except Exception:
        # A certificate file that cannot be read, for one.
        return fail(Failure())
    # The endpoint's own time-out says nothing of the name's resolution.
    connecting.addTimeout(2 * bound, reactor)
    return cast(Deferred[RedisProtocol], connecting)


async def enter(protocol: RedisProtocol, url: RedisUrl, *, name: str, keys: Keys) -> str:
    """Enter, look whether the server is fit, and load the scripts; gives its version.

    Raises `BrokerError`, which is `Unusable` where the server or the user will not do.
    """
    steps = greeting(url, name=name, keys=keys)
    commands = next(steps)
    while True:
        answers = await protocol.pipeline(*commands)
        for answer in answers:
            if isinstance(answer, ConnectionDropped):
                # Some proxies close the connection on what they do not know.
                raise ConnectionDropped(f"{answer.args[0]} (it was asked {names(commands)})")
            if isinstance(answer, NotConnected):
                raise answer
        try:
            commands = steps.send(answers)
        except StopIteration as end:
            version = str(end.value.version)
            break
    for answer in await protocol.pipeline(*load()):
        if not isinstance(checked(answer), bytes):
            raise Unusable("it answers SCRIPT LOAD as no Redis does")
    return version


def _endpoint(url: RedisUrl, reactor: IReactorTime, bound: float) -> IStreamClientEndpoint:
    """How to reach `url`; certificates are verified, against ``ssl_ca_certs`` where given."""
    if url.kind == "unix":
        return UNIXClientEndpoint(reactor, url.path, timeout=bound)
    endpoint = HostnameEndpoint(reactor, url.host, url.port, timeout=bound)
    if url.kind != "tls":
        return endpoint
    trust = None
    if url.ca_file is not None:
        trust = trustRootFromCertificates(_certificates(url.ca_file))
    return wrapClientTLS(optionsForClientTLS(url.host, trustRoot=trust), endpoint)


def _certificates(path: str) -> list[Certificate]:
    pem, end = Path(path).read_bytes(), b"-----END CERTIFICATE-----"
    try:
        found = [Certificate.loadPEM(part + end) for part in pem.split(end)[:-1]]
    except Exception as error:
        raise ValueError(f"{path} has a certificate that cannot be read: {error!r}") from error
    if not found:
        raise ValueError(f"{path} has no certificate in it")
    return found


def reason_of(error: Exception, bound: float) -> str:
    """What to tell of an attempt that failed."""
    if isinstance(error, TimeoutError):
        return f"no answer within {bound:.0f} s"
    if isinstance(error, BrokerError) and error.args:
        # That nothing was done, or perhaps, is of no interest here.
        return str(error.args[0])
    return str(error) or type(error).__name__
