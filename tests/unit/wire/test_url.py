"""What ``--redis`` takes, and what it says of what it does not take."""

import os

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.errors import ConfigError
from queuerelay.wire.url import SOCKET_PATH_BOUND, Address, RedisUrl, address_of, parse

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost", RedisUrl(kind="tcp")),
        ("example.org:7000", RedisUrl(kind="tcp", host="example.org", port=7000)),
        ("10.0.0.1", RedisUrl(kind="tcp", host="10.0.0.1")),
        ("[::1]:7000", RedisUrl(kind="tcp", host="::1", port=7000)),
        ("redis://", None),
        ("redis://h", RedisUrl(kind="tcp", host="h")),
        ("redis://h/", RedisUrl(kind="tcp", host="h")),
        ("redis://h:1/5", RedisUrl(kind="tcp", host="h", port=1, db=5)),
        ("redis://h?db=5", RedisUrl(kind="tcp", host="h", db=5)),
        ("redis://:pw@h", RedisUrl(kind="tcp", host="h", password="pw")),
        ("redis://u@h", RedisUrl(kind="tcp", host="h", username="u")),
        (
            "redis://u%40x:p%2Fw%3A%23@h:7/2",
            RedisUrl(kind="tcp", host="h", port=7, username="u@x", password="p/w:#", db=2),
        ),
        ("redis://u:p@w@h", RedisUrl(kind="tcp", host="h", username="u", password="p@w")),
        ("rediss://h", RedisUrl(kind="tls", host="h")),
        (
            "rediss://h:7/1?ssl_ca_certs=%2Fetc%2Fca.pem",
            RedisUrl(kind="tls", host="h", port=7, db=1, ca_file="/etc/ca.pem"),
        ),
        ("a,b", RedisUrl(kind="tcp", host="a", more=(Address("b", 6379),))),
        (
            "redis://u:p@a,b:7,[::1],[2001:db8::1]:8/3",
            RedisUrl(
                kind="tcp",
                host="a",
                more=(Address("b", 7), Address("::1", 6379), Address("2001:db8::1", 8)),
                username="u",
                password="p",
                db=3,
            ),
        ),
        ("redis://[::1],a", RedisUrl(kind="tcp", host="::1", more=(Address("a", 6379),))),
        ("redis://a,b,a,A:6379", RedisUrl(kind="tcp", host="a", more=(Address("b", 6379),))),
        (
            "rediss://a:1,b:2?ssl_ca_certs=/ca+1.pem",
            RedisUrl(kind="tls", host="a", port=1, more=(Address("b", 2),), ca_file="/ca+1.pem"),
        ),
        (
            "sentinel://h/mymaster",
            RedisUrl(kind="tcp", host="h", port=26379, service="mymaster"),
        ),
        (
            "sentinel://u:p@h1,h2:5,[::1]/my.Master-1_/4"
            "?sentinel_username=s&sentinel_password=a%2Fb+c",
            RedisUrl(
                kind="tcp",
                host="h1",
                port=26379,
                more=(Address("h2", 5), Address("::1", 26379)),
                service="my.Master-1_",
                username="u",
                password="p",
                sentinel_username="s",
                sentinel_password="a/b+c",
                db=4,
            ),
        ),
        (
            "sentinels://h/m?ssl_ca_certs=/ca.pem&db=2",
            RedisUrl(kind="tls", host="h", port=26379, service="m", ca_file="/ca.pem", db=2),
        ),
        ("unix:///run/redis.sock", RedisUrl(kind="unix", path="/run/redis.sock")),
        (
            "unix://u:pw@/run/a%20b.sock?db=3",
            RedisUrl(kind="unix", path="/run/a b.sock", username="u", password="pw", db=3),
        ),
        ("embedded", RedisUrl(kind="embedded")),
        ("embedded:", RedisUrl(kind="embedded")),
        ("embedded:/var/q", RedisUrl(kind="embedded", path="/var/q")),
        ("embedded:/var/q/", RedisUrl(kind="embedded", path="/var/q")),
    ],
)
def test_parse(text, expected):
    if expected is None:
        with pytest.raises(ConfigError):
            parse(text)
    else:
        assert parse(text) == expected


def test_an_embedded_directory_is_absolute_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse("embedded:data").path == str(tmp_path / "data")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "host name",
        "host/0",
        "host?db=1",
        "user@host",
        "://",
        "http://h",
        "redis:/h",
        "redis://:7000",
        "redis://h:port",
        "redis://h:0",
        "redis://h:65536",
        "redis://h:-1",
        "redis://[::1",
        "redis://h/one",
        "redis://h/1/2",
        "redis://h/-1",
        "redis://h/\u0661",
        "redis://h/1234567",
        "redis://h/1?db=2",
        "redis://h?db=1&db=2",
        "redis://h?db=",
        "redis://h?timeout=5",
        "redis://h?ssl_ca_certs=/ca.pem",
        "redis://h#1",
        "redis://ho st",
        "redis://h\n",
        "redis://h\x00",
        "rediss://",
        "unix://relative/path",
        "unix://",
        "unix:///",
        "unix:///s?ssl_ca_certs=/x",
        "unix:///" + "x" * SOCKET_PATH_BOUND,
        "embedded:/" + "x" * SOCKET_PATH_BOUND,
        "embedded:a\nb",
        "redis+sentinel://h",
        ",",
        "a,",
        ",a",
        "a,,b",
        "a, b",
        "redis://a,b:port",
        "redis://a,b:0",
        "redis://a:1:2,b",
        "redis://a,redis://b",
        "redis://a,u:p@b",
        "redis://u:p@a,u:p@b",
        "redis://a/0,b/0",
        "redis://a,::1",
        "redis://a,[::1",
        "redis://a,[::1]x",
        "redis://a,[b]",
        "redis://[]",
        "redis://[fe80::1%25eth0%25]",
        "redis://" + ",".join(f"h{i}" for i in range(17)),
        "unix://a,b/s",
        "redis://a?sentinel_password=x",
        "sentinel://",
        "sentinel://h",
        "sentinel://h/",
        "sentinel:///m",
        "sentinel://h//0",
        "sentinel://h/m/x",
        "sentinel://h/m/0/1",
        "sentinel://h/m/1?db=2",
        "sentinel://h/m m",
        "sentinel://h/m%20m",
        "sentinel://h/m*",
        "sentinel://h,/m",
        "sentinel://h/m?ssl_ca_certs=/ca.pem",
        "sentinel://h/m?sentinel_password=a&sentinel_password=b",
        "sentinel://h/m?password=a",
        "sentinel://h/m#0",
    ],
)
def test_what_is_wrong_is_refused_and_named(text):
    with pytest.raises(ConfigError, match=r"^wrong configuration: --where: got .*, expected "):
        parse(text, option="--where")


@pytest.mark.parametrize(
    "text",
    [
        f"redis://u:{SECRET}@h:port",
        f"redis://u:{SECRET}@h/x",
        f"redis://:{SECRET}@h?timeout=1",
        f"redis://u:{SECRET}",
        f"redis://:{SECRET}",
        f"redis://u:{SECRET}:55",
        f"redis://u:x://{SECRET}@h:p",
        f"redis://u:a/{SECRET}@h",
        f"redis://u:{SECRET}#@h",
        f"redis://u:1/{SECRET}@h",
        f"redis://u:@{SECRET}@h/x",
        f"redis://h?password={SECRET}",
        f"redis://h/0?db=x&PASSWORD={SECRET}",
        f"http://u:{SECRET}@h",
        f"u:{SECRET}@h",
        f"u:{SECRET}",
        f":{SECRET}@h:1/2",
        f"unix://u:{SECRET}@relative",
        f"rediss://[::1]:{SECRET}",
        f"redis://u:{SECRET}@h\n",
        f"redis://u:{SECRET}@a,b:x/0",
        f"redis://a,u:{SECRET}@b:x",
        f"redis://a,b:{SECRET}",
        f"a,b:{SECRET}",
        f"sentinel://u:{SECRET}@h",
        f"sentinel://h/m/x?sentinel_password={SECRET}",
        f"sentinel://h/m?sentinel_password={SECRET}&sentinel_password={SECRET}",
    ],
)
def test_no_error_tells_the_password(text):
    with pytest.raises(ConfigError) as raised:
        parse(text)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"redis://u:{SECRET}@h:1/2", "redis://u:***@h:1/2"),
        (f"redis://:{SECRET}@h", "redis://:***@h:6379/0"),
        ("redis://u@h", "redis://u@h:6379/0"),
        ("localhost", "redis://localhost:6379/0"),
        ("[::1]", "redis://[::1]:6379/0"),
        (f"unix://:{SECRET}@/s?db=1", "unix://:***@/s?db=1"),
        (f"rediss://u:{SECRET}@h?ssl_ca_certs=/ca", "rediss://u:***@h:6379/0?ssl_ca_certs=%2Fca"),
        (f"redis://u:{SECRET}@a,[::1]:7/2", "redis://u:***@a:6379,[::1]:7/2"),
        (
            f"sentinel://:{SECRET}@a,b:5/m?sentinel_username=s&sentinel_password={SECRET}x",
            "sentinel://:***@a:26379,b:5/m/0?sentinel_username=s&sentinel_password=***",
        ),
        ("sentinels://a/m", "sentinels://a:26379/m/0"),
        ("embedded", "embedded"),
        ("embedded:/d", "embedded:/d"),
    ],
)
def test_redacted(text, shown):
    assert parse(text).redacted == shown


def test_a_place_is_without_who_enters_there():
    found = parse("redis://anna:secret@host:1234/5")
    assert found.place == "redis://host:1234/5"
    several = parse("sentinel://anna:secret@a,b/m?sentinel_username=s&sentinel_password=p")
    assert several.place == "sentinel://a:26379,b:26379/m/0"
    assert parse("unix:///run/redis.sock").place == parse("unix:///run/redis.sock").redacted


def connection_of(text):
    """How redis-py understands it."""
    client = redis.Redis.from_url(text)
    try:
        return client.connection_pool.connection_class, client.connection_pool.connection_kwargs
    finally:
        client.close()


def test_for_redis_py_over_tcp():
    kind, options = connection_of(parse("redis://u:p%2F%40:w@[::1]:7/3").for_redis_py())
    assert kind is redis.Connection
    assert options["host"] == "::1"
    assert (options["port"], options["db"]) == (7, 3)
    assert (options["username"], options["password"]) == ("u", "p/@:w")


def test_for_redis_py_over_tls():
    url = parse("rediss://h/1?ssl_ca_certs=/a%20b.pem")
    kind, options = connection_of(url.for_redis_py())
    assert kind is redis.SSLConnection
    assert options["ssl_ca_certs"] == "/a b.pem"


def test_for_redis_py_over_a_unix_socket():
    kind, options = connection_of(parse("unix://u:p@/a%20b%23.sock?db=2").for_redis_py())
    assert kind is redis.UnixDomainSocketConnection
    assert options["path"] == "/a b#.sock"
    assert (options["db"], options["username"], options["password"]) == (2, "u", "p")


def test_for_redis_py_embedded():
    _, options = connection_of(parse("embedded:/var/q").embedded_socket().for_redis_py())
    assert options["path"] == "/var/q/valkey.sock"


words = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20)


@given(
    password=words,
    username=st.none() | words,
    host=st.sampled_from(["h.example", "10.0.0.1", "::1"]),
    port=st.integers(1, 65535),
    db=st.integers(0, 999),
    kind=st.sampled_from(["tcp", "tls"]),
)
def test_there_and_back(password, username, host, port, db, kind):
    url = RedisUrl(kind=kind, host=host, port=port, username=username, password=password, db=db)
    assert parse(url.for_redis_py()) == url
    _, options = connection_of(url.for_redis_py())
    assert options["password"] == password
    assert options.get("username") == username


def test_the_servers_of_several():
    url = parse("sentinel://u:p@a,b:5/m/3?sentinel_username=s&sentinel_password=q")
    assert url.several
    assert url.addresses == (Address("a", 26379), Address("b", 5))
    assert url.at(Address("::1", 7)) == parse("redis://u:p@[::1]:7/3")
    assert url.sentinel_at(Address("b", 5)) == parse("redis://s:q@b:5/0")
    assert parse("sentinels://a/m").sentinel_at(Address("a", 5)) == parse("rediss://a:5")
    several = parse("rediss://:p@a,b/2?ssl_ca_certs=/ca")
    assert several.several
    assert [several.at(one) for one in several.addresses] == [
        parse("rediss://:p@a/2?ssl_ca_certs=/ca"),
        parse("rediss://:p@b/2?ssl_ca_certs=/ca"),
    ]
    assert not parse("redis://a").several


@pytest.mark.parametrize(
    ("answer", "address"),
    [
        ([b"10.0.0.1", b"6379"], Address("10.0.0.1", 6379)),
        ([b"2001:db8::1", b"1"], Address("2001:db8::1", 1)),
        (None, None),
        ([], None),
        ([b"h"], None),
        ([b"", b"1"], None),
        ([b"h", b"0"], None),
        ([b"h", b"65536"], None),
        ([b"h", b"x"], None),
        ([b"h", 1], None),
        (b"OK", None),
    ],
)
def test_what_a_sentinel_says(answer, address):
    assert address_of(answer) == address


addresses = st.lists(
    st.builds(
        Address,
        st.sampled_from(["h.example", "10.0.0.1", "::1", "fe80::5", "b"]),
        st.integers(1, 65535),
    ),
    min_size=1,
    max_size=16,
    unique=True,
)


@given(
    addresses=addresses,
    service=st.just("") | st.from_regex(r"[A-Za-z0-9._-]+", fullmatch=True),
    password=st.none() | words,
    sentinel_password=st.none() | words,
    kind=st.sampled_from(["tcp", "tls"]),
)
def test_several_there_and_back(addresses, service, password, sentinel_password, kind):
    (host, port), *more = addresses
    url = RedisUrl(
        kind=kind,
        host=host,
        port=port,
        more=tuple(more),
        service=service,
        password=password,
        sentinel_password=sentinel_password if service else None,
    )
    assert parse(url._text()) == url
    for hidden in (url.redacted, url.place):
        assert parse(hidden).addresses == url.addresses


@given(st.text(max_size=60))
def test_any_text_gives_an_address_or_a_configuration_error(text):
    try:
        url = parse(text)
    except ConfigError:
        return
    assert os.path.isabs(url.path) or url.path == ""
