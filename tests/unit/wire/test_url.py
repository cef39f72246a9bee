"""What ``--redis`` takes, and what it says of what it does not take."""

import os

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.errors import ConfigError
from queuerelay.wire.url import SOCKET_PATH_BOUND, RedisUrl, parse

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
        ("embedded", "embedded"),
        ("embedded:/d", "embedded:/d"),
    ],
)
def test_redacted(text, shown):
    assert parse(text).redacted == shown


def test_a_place_is_without_who_enters_there():
    found = parse("redis://anna:secret@host:1234/5")
    assert found.place == "redis://host:1234/5"
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
    _, options = connection_of(parse("embedded:/var/q").for_redis_py())
    assert options["path"] == "/var/q/valkey.sock"
    with pytest.raises(ConfigError, match="embedded:DIR"):
        parse("embedded").for_redis_py()


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


@given(st.text(max_size=60))
def test_any_text_gives_an_address_or_a_configuration_error(text):
    try:
        url = parse(text)
    except ConfigError:
        return
    assert os.path.isabs(url.path) or url.path == ""
