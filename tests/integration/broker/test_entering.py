"""The ways into Redis: TLS, Unix sockets, users, passwords, databases."""

import pytest
import pytest_twisted
import redis
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.threads import deferToThread

from queuerelay.broker.redis import connection
from queuerelay.broker.redis.broker import RedisBroker
from queuerelay.errors import Refused
from queuerelay.wire import url
from queuerelay.wire.keys import Keys
from queuerelay.wire.storage import Storage
from queuerelay.worker.link import Link, Outage
from queuerelay.worker.master import MasterFinder
from tests.helpers.acl import users
from tests.helpers.certificates import Authority
from tests.integration.broker.doubles import Proxy
from tests.unit.broker.contract import KEYS, ONE, claim_one, eventually, turns, within


@pytest.fixture
def broker_at(monkeypatch):
    """Brokers at an address, started."""
    monkeypatch.setattr(connection, "LONGEST_PAUSE", 0.1)
    brokers = []

    def make(address):
        from twisted.internet import reactor

        broker = RedisBroker(url.parse(address), reactor=reactor)
        brokers.append(broker)
        broker.start()
        return broker

    yield make
    for broker in brokers:
        pytest_twisted.blockon(broker.stop())


def lines(said, text):
    return [line for level, line in said if text in line]


async def works(broker):
    await within(broker.when_up())
    assert await broker.queues.push("q", [ONE]) == 1
    claim = await claim_one(broker, ["q"], holder="h", lease=60.0)
    assert await broker.leases.ack(claim) is True


async def is_told(said, text):
    """That `text` is said once, however often it is tried."""
    await eventually(lambda: lines(said, text))
    await turns(0.3)
    assert len(lines(said, "no connection to Redis")) == 1, said


# Sockets, databases, users


async def test_a_unix_socket(fresh_valkey, broker_at):
    await works(broker_at(f"unix://{fresh_valkey.socket}"))


async def test_a_unix_socket_that_is_not_there_yet(own_valkey, broker_at, said):
    server = own_valkey()
    server.stop()
    broker = broker_at(f"unix://{server.socket}")
    await is_told(said, f"unix://{server.socket}: ")
    server.start()
    await works(broker)


async def test_a_database(fresh_valkey, broker_at):
    broker = broker_at(f"redis://127.0.0.1:{fresh_valkey.port}/5")
    await within(broker.when_up())
    await broker.queues.push("q", [ONE])
    assert fresh_valkey.client().dbsize() == 0
    assert fresh_valkey.client(db=5).lrange(KEYS.queue("q"), 0, -1) == [ONE]
    over_unix = broker_at(f"unix://{fresh_valkey.socket}?db=5")
    await within(over_unix.when_up())
    assert await over_unix.queues.push("q", [ONE]) == 2


async def test_a_database_that_does_not_exist(fresh_valkey, broker_at, said):
    broker = broker_at(f"redis://127.0.0.1:{fresh_valkey.port}/99999")
    await is_told(said, "DB index is out of range")
    assert not broker.is_up


PASSWORD = "p@ss/w:rd#1 é"
QUOTED = "p%40ss%2Fw%3Ard%231%20%C3%A9"


async def test_a_password(own_valkey, broker_at):
    server = own_valkey("--requirepass", PASSWORD)
    await works(broker_at(f"redis://:{QUOTED}@127.0.0.1:{server.port}"))
    await works(broker_at(f"redis://default:{QUOTED}@127.0.0.1:{server.port}"))
    await works(broker_at(f"unix://:{QUOTED}@{server.socket}"))


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("", "NOAUTH"),
        (":wrong@", "WRONGPASS"),
        ("nobody:wrong@", "WRONGPASS"),
        ("nobody@", "WRONGPASS"),
    ],
)
async def test_a_password_that_is_mended(own_valkey, broker_at, said, entry, text):
    server = own_valkey("--requirepass", PASSWORD)
    broker = broker_at(f"redis://{entry}127.0.0.1:{server.port}")
    await is_told(said, text)
    assert not lines(said, "wrong@")
    admin = server.client(password=PASSWORD)
    admin.execute_command("ACL", "SETUSER", "nobody", "on", "nopass", "~*", "+@all")
    admin.config_set("requirepass", "wrong" if entry.startswith(":") else "")
    await works(broker)


async def test_a_password_where_none_is_set_is_told(own_valkey, broker_at, said):
    server = own_valkey()
    broker = broker_at(f"redis://:secret@127.0.0.1:{server.port}")
    await is_told(said, "without any password configured")
    assert not lines(said, "secret")
    server.client().config_set("requirepass", "secret")
    await works(broker)


async def test_a_user(own_valkey, broker_at):
    server = own_valkey()
    server.client().execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all")
    server.client().execute_command("ACL", "SETUSER", "default", "off")
    await works(broker_at(f"redis://app:pw@127.0.0.1:{server.port}"))
    await works(broker_at(f"unix://app:pw@{server.socket}"))


async def test_a_user_who_may_ask_neither_info_nor_role(own_valkey, broker_at):
    """As of a managed Redis: HELLO says what has to be known."""
    server = own_valkey()
    rules = [rule for rule in users()["daemon"] if rule != "+info"]
    server.client().execute_command("ACL", "SETUSER", "daemon", *rules)
    broker = broker_at(f"redis://daemon:PASSWORD@127.0.0.1:{server.port}")
    await works(broker)
    survey = await broker.nodes.survey()
    assert survey.version is not None
    assert survey.version.startswith(("Valkey", "Redis"))
    assert (survey.storage, survey.queues) == (Storage(), ["q"])
    await broker.nodes.beat("n", b"{}", inbox_life=60.0)
    await broker.nodes.leave("n")
    assert await broker.leases.reap("q", lease=60.0) == []


@pytest.mark.parametrize("less", ["+rpush", "~resque:*"])
async def test_a_missing_right_says_what_it_was_wanted_for(own_valkey, broker_at, less):
    server = own_valkey()
    rules = [rule for rule in users()["daemon"] if rule != less]
    server.client().execute_command("ACL", "SETUSER", "daemon", *rules)
    broker = broker_at(f"redis://daemon:PASSWORD@127.0.0.1:{server.port}")
    await within(broker.when_up())
    with pytest.raises(Refused, match=r"(NOPERM|ACL failure).*ACL line") as raised:
        await broker.queues.push("q", [ONE])
    assert "(script push resque:queue:q " in str(raised.value)
    server.client().execute_command("ACL", "SETUSER", "daemon", "-hsetnx")
    with pytest.raises(Refused, match=r"\(script pause queuerelay:gate\)"):
        await broker.gate.pause("q", by="anna")


async def test_a_user_without_rights_is_told_and_mended(own_valkey, broker_at, said):
    server = own_valkey()
    server.client().execute_command("ACL", "SETUSER", "app", "on", ">pw", "+client|setname")
    broker = broker_at(f"redis://app:pw@127.0.0.1:{server.port}")
    await is_told(said, "NOPERM")
    server.client().execute_command("ACL", "SETUSER", "app", "~*", "+@all")
    await works(broker)


# TLS


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "ours")


@pytest.fixture
def tls_front(fresh_valkey, monkeypatch):
    """A TLS listener with a certificate file, in front of the server; gives its port."""
    fronts = []

    def make(pem):
        from twisted.internet import reactor

        context = DefaultOpenSSLContextFactory(str(pem), str(pem))
        # Only its plain listener is replaced; the rest is the proxy of the other tests.
        monkeypatch.setattr(
            "tests.integration.broker.doubles.listen",
            lambda factory: reactor.listenSSL(0, factory, context, interface="127.0.0.1"),
        )
        fronts.append(Proxy(fresh_valkey.port))
        return fronts[-1]

    yield make
    for front in fronts:
        pytest_twisted.blockon(front.stop())


def tls_url(front, host="127.0.0.1", ca=None):
    query = "" if ca is None else f"?ssl_ca_certs={ca}"
    return front.url.replace("redis://127.0.0.1", f"rediss://{host}") + query


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_tls(authority, tls_front, broker_at, host):
    front = tls_front(authority.issue(host))
    broker = broker_at(tls_url(front, host, authority.ca))
    await works(broker)
    # Lost and made again, as any other.
    front.cut_all()
    await eventually(lambda: not broker.is_up)
    await works(broker)


async def test_tls_with_several_authorities_in_the_file(authority, tls_front, broker_at, tmp_path):
    other = Authority(tmp_path, "other")
    both = tmp_path / "both.pem"
    both.write_bytes(b"# ours and theirs\n" + other.ca.read_bytes() + authority.ca.read_bytes())
    await works(broker_at(tls_url(tls_front(authority.issue("127.0.0.1")), ca=both)))


async def test_tls_with_large_values(authority, tls_front, broker_at):
    broker = broker_at(tls_url(tls_front(authority.issue("127.0.0.1")), ca=authority.ca))
    await within(broker.when_up())
    large = b"x" * 5_000_000
    await broker.queues.push("q", [large])
    claim = await claim_one(broker, ["q"], holder="h", lease=60.0)
    assert claim.message == large


async def test_a_certificate_of_somebody_else_is_refused(
    authority, tls_front, broker_at, said, tmp_path
):
    other = Authority(tmp_path, "other")
    broker = broker_at(tls_url(tls_front(other.issue("127.0.0.1")), ca=authority.ca))
    await is_told(said, "TLS: certificate verify failed")
    assert not broker.is_up
    # Mended by the file alone.
    authority.ca.write_bytes(other.ca.read_bytes())
    await works(broker)


async def test_without_a_file_the_system_decides(authority, tls_front, broker_at, said):
    broker = broker_at(tls_url(tls_front(authority.issue("127.0.0.1"))))
    await is_told(said, "TLS: certificate verify failed")
    assert not broker.is_up


async def test_an_expired_certificate_is_refused(authority, tls_front, broker_at, said):
    front = tls_front(authority.issue("127.0.0.1", expired=True))
    broker = broker_at(tls_url(front, ca=authority.ca))
    await is_told(said, "TLS: certificate verify failed")
    assert not broker.is_up


async def test_a_certificate_for_another_host_is_refused(authority, tls_front, broker_at, said):
    front = tls_front(authority.issue("elsewhere.example"))
    broker = broker_at(tls_url(front, ca=authority.ca))
    await is_told(said, "TLS: the certificate is for another host")
    assert not broker.is_up


def linked(address):
    """A worker's connection."""
    master = MasterFinder(url.parse(address), keys=Keys())
    return Link(master, role="main", outage=Outage(), timeout=10.0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_worker_over_tls(authority, tls_front, host):
    link = linked(tls_url(tls_front(authority.issue(host)), host, authority.ca))
    assert await deferToThread(link.send, ("ECHO", "x")) == [b"x"]
    link.close()


async def test_a_worker_refuses_a_certificate_for_another_host(authority, tls_front, monkeypatch):
    # What redis-py 5 does unless told.
    plain = redis.SSLConnection.__init__

    def of_version_5(self, *args, ssl_check_hostname=False, **kwargs):
        plain(self, *args, ssl_check_hostname=ssl_check_hostname, **kwargs)

    monkeypatch.setattr(redis.SSLConnection, "__init__", of_version_5)
    link = linked(tls_url(tls_front(authority.issue("elsewhere.example")), ca=authority.ca))
    with pytest.raises(redis.RedisError, match=r"certificate verify failed: (IP|Host)"):
        await deferToThread(link.send, ("PING",))


async def test_a_worker_refuses_a_certificate_of_somebody_else(authority, tls_front, tmp_path):
    other = Authority(tmp_path, "other")
    link = linked(tls_url(tls_front(other.issue("127.0.0.1")), ca=authority.ca))
    with pytest.raises(redis.RedisError, match="certificate verify failed"):
        await deferToThread(link.send, ("PING",))


async def test_tls_to_a_plain_server(fresh_valkey, broker_at, said, authority):
    broker = broker_at(f"rediss://127.0.0.1:{fresh_valkey.port}?ssl_ca_certs={authority.ca}")
    await eventually(lambda: lines(said, "no connection to Redis"))
    assert not broker.is_up


async def test_plain_to_a_tls_server(authority, tls_front, broker_at, said):
    broker = broker_at(tls_front(authority.issue("127.0.0.1")).url)
    await eventually(lambda: lines(said, "no connection to Redis"))
    assert not broker.is_up


async def test_a_certificate_file_that_is_missing_or_no_certificate(
    authority, tls_front, broker_at, said, tmp_path
):
    path = tmp_path / "ca.pem"
    broker = broker_at(tls_url(tls_front(authority.issue("127.0.0.1")), ca=path))
    await is_told(said, f"No such file or directory: '{path}'")
    path.write_text("rubbish")
    await eventually(lambda: lines(said, f"{path} has no certificate in it"))
    path.write_bytes(authority.ca.read_bytes().replace(b"M", b"N"))
    await eventually(lambda: lines(said, "has a certificate that cannot be read"))
    path.write_bytes(authority.ca.read_bytes())
    await works(broker)


async def test_the_same_address_serves_redis_py(own_valkey, broker_at):
    server = own_valkey()
    server.client().execute_command("ACL", "SETUSER", "app", "on", f">{PASSWORD}", "~*", "+@all")
    for text in (
        f"redis://app:{QUOTED}@127.0.0.1:{server.port}/3",
        f"unix://app:{QUOTED}@{server.socket}?db=3",
    ):
        broker = broker_at(text)
        await within(broker.when_up())
        length = await broker.queues.push("q", [ONE])
        with redis.Redis.from_url(url.parse(text).for_redis_py()) as client:
            assert client.llen(KEYS.queue("q")) == length
