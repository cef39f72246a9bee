"""What a server of Redis says of itself, and what is made of it."""

import pytest

from queuerelay.errors import BrokerError, NotConnected, Refused, Unusable
from queuerelay.wire import commands
from queuerelay.wire.keys import Keys
from queuerelay.wire.server import explained, greeting, is_permission, meaning, who_is_master
from queuerelay.wire.url import parse

NO_HELLO = Refused("ERR unknown command 'HELLO', with args beginning with: ")
NOT_ALLOWED = Refused("NOPERM User app has no permissions to run the 'info' command")
ARITY = Refused("ERR wrong number of arguments for 'blmove' command")


def hello(server=b"redis", version=b"7.4.0", mode=b"standalone", role=b"master"):
    told = {b"server": server, b"version": version, b"proto": 2, b"id": 5, b"mode": mode}
    pairs = {**told, b"role": role, b"modules": []}.items()
    return [one for pair in pairs for one in pair]


class Fake:
    """A server that answers a greeting; `asked` are the commands."""

    def __init__(self, **answers):
        usual = {
            "AUTH": b"OK",
            "SELECT": b"OK",
            "CLIENT": b"OK",
            "HELLO": hello(),
            "EVAL": 1,
            "BLMOVE": ARITY,
            "ROLE": [b"master", 0, []],
            "INFO": b"# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n",
        }
        self.answers = {**usual, **answers}
        self.asked = []

    def greet(self, url="redis://h"):
        steps = greeting(parse(url), name="queuerelay-test", keys=Keys())
        asked = next(steps)
        while True:
            self.asked += asked
            try:
                asked = steps.send([self.answers[command[0]] for command in asked])
            except StopIteration as end:
                return end.value

    def names(self):
        return [command[0] for command in self.asked]


def test_hello_tells_all_that_has_to_be_known():
    fake = Fake()
    assert fake.greet().version == "Redis 7.4.0"
    assert fake.names() == ["CLIENT", "HELLO", "EVAL", "BLMOVE"]


def test_user_password_and_database():
    fake = Fake()
    fake.greet("redis://u:p@h/5")
    assert fake.asked[0] == ("AUTH", "u", "p")
    assert ("SELECT", 5) in fake.asked
    fake = Fake()
    fake.greet("redis://:p@h")
    assert fake.asked[0] == ("AUTH", "p")
    with pytest.raises(Refused, match="out of range"):
        Fake(SELECT=Refused("ERR DB index is out of range")).greet("redis://h/99")
    with pytest.raises(NotConnected, match="WRONGPASS"):
        Fake(AUTH=NotConnected("WRONGPASS invalid")).greet("redis://:p@h")


@pytest.mark.parametrize("nothing", [NO_HELLO, b"OK", None, [], [b"version", 5], [b"server"]])
def test_without_hello_info_and_role_are_asked(nothing):
    fake = Fake(HELLO=nothing)
    assert fake.greet().version == "Redis 7.0.15"
    assert fake.names() == ["CLIENT", "HELLO", "INFO", "ROLE", "EVAL", "BLMOVE"]


@pytest.mark.parametrize("refused", [NOT_ALLOWED, Refused("ERR unknown command 'role'")])
def test_a_user_who_may_ask_neither_info_nor_role(refused):
    assert Fake(CLIENT=NOT_ALLOWED, INFO=refused, ROLE=refused).greet().version == "Redis 7.4.0"
    # HELLO that tells no role, and no ROLE: the first write will tell.
    fake = Fake(HELLO=hello(role=b""), INFO=refused, ROLE=refused)
    assert fake.greet().role == ""


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ({"HELLO": hello(version=b"7.0.15")}, "Redis 7.0.15"),
        ({"HELLO": hello(version=b"8.0-rc1")}, "Redis 8.0-rc1"),
        ({"HELLO": hello(version=b"10.2.3")}, "Redis 10.2.3"),
        ({"HELLO": hello(b"valkey", b"7.2.0")}, "Valkey 7.2.0"),
        ({"HELLO": hello(b"valkey", b"9.1.2")}, "Valkey 9.1.2"),
        ({"HELLO": NO_HELLO, "INFO": b"redis_version:10.2.3\r\n"}, "Redis 10.2.3"),
        (
            {
                "HELLO": NO_HELLO,
                "INFO": b"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n",
            },
            "Valkey 9.1.2",
        ),
        (
            {"HELLO": NO_HELLO, "INFO": b"redis_version:\xff\r\nredis_version:7.4.0\r\n"},
            "Redis 7.4.0",
        ),
    ],
)
def test_versions(said, version):
    assert Fake(**said).greet().version == version


CLUSTER = (
    "Redis 7.4.0 is in cluster mode, and a single server without cluster mode is needed, alone or "
    "behind Sentinel: cluster-enabled no"
)


@pytest.mark.parametrize(
    ("said", "code", "text"),
    [
        ({"HELLO": hello(mode=b"cluster")}, "redis-cluster", CLUSTER),
        (
            {
                "HELLO": NO_HELLO,
                "INFO": b"redis_version:7.4.0\r\nredis_mode:cluster\r\n",
            },
            "redis-cluster",
            CLUSTER,
        ),
        (
            {"HELLO": NO_HELLO, "INFO": b"redis_version:7.2.4\r\nserver_mode:cluster\r\n"},
            "redis-cluster",
            "cluster mode",
        ),
        # What is hidden behind a proxy shows in a script with keys of several slots.
        (
            {"EVAL": Refused("CROSSSLOT Keys in request don't hash to the same slot")},
            "redis-cluster",
            "it is a cluster (CROSSSLOT Keys",
        ),
        ({"EVAL": Refused("MOVED 5 10.0.0.1:6379")}, "redis-cluster", "it is a cluster (MOVED 5"),
        ({"EVAL": Refused("CLUSTERDOWN Hash slot not served")}, "redis-cluster", "CLUSTERDOWN"),
        (
            {"EVAL": Refused("ERR unknown command 'EVAL'")},
            "redis-proxy",
            "it does not know a command (ERR unknown command 'EVAL'): a server is needed that",
        ),
        ({"BLMOVE": Refused("unsupported command 'blmove'")}, "redis-proxy", "no proxy"),
        ({"HELLO": hello(mode=b"sentinel")}, "redis-unusable", "sentinel://HOST:PORT/NAME"),
        ({"HELLO": hello(version=b"6.2.0")}, "redis-version", "version 6.2.0 is too old"),
        ({"HELLO": hello(b"valkey", b"7.1.9")}, "redis-version", "7.1.9 is too old, at least"),
        (
            {"HELLO": NO_HELLO, "INFO": b"redis_version:2.8\r\n"},
            "redis-version",
            "at least Redis 7.0 or Valkey 7.2 is needed",
        ),
        (
            {"HELLO": NO_HELLO, "INFO": b"redis_version:unknown\r\n"},
            "redis-unusable",
            "its version is 'unknown'",
        ),
        ({"HELLO": NO_HELLO, "INFO": b""}, "redis-unusable", "names no redis_version"),
        ({"HELLO": NO_HELLO, "INFO": 5}, "redis-unusable", "answers INFO as no Redis does"),
        (
            {
                "HELLO": hello(role=b"replica"),
                "ROLE": [b"slave", b"10.0.0.1", 6379, b"connected", 1],
            },
            "redis-replica",
            "it is a replica of 10.0.0.1:6379, and the master is needed",
        ),
        (
            {"HELLO": hello(role=b"replica"), "ROLE": NOT_ALLOWED},
            "redis-replica",
            "it is a replica, and the master is needed",
        ),
        ({"HELLO": NO_HELLO, "ROLE": [b"slave"]}, "redis-replica", "a replica of ?:0"),
        ({"HELLO": NO_HELLO, "ROLE": [b"sentinel", [b"m"]]}, "redis-unusable", "a sentinel"),
        ({"HELLO": NO_HELLO, "ROLE": []}, "redis-unusable", "as no Redis does"),
        ({"HELLO": NO_HELLO, "ROLE": 5}, "redis-unusable", "as no Redis does"),
        ({"HELLO": NO_HELLO, "ROLE": [5]}, "redis-unusable", "as no Redis does"),
    ],
)
def test_what_will_not_do(said, code, text):
    with pytest.raises(Unusable) as raised:
        Fake(**said).greet()
    assert text in str(raised.value)
    assert raised.value.code == code


def test_a_cluster_is_named_before_a_database_is_refused():
    fake = Fake(HELLO=hello(mode=b"cluster"), SELECT=Refused("ERR SELECT is not allowed"))
    with pytest.raises(Unusable, match="cluster mode"):
        fake.greet("redis://h/5")


@pytest.mark.parametrize("command", ["CLIENT", "INFO", "ROLE", "HELLO"])
def test_other_errors_stay_what_they_are(command):
    error = NotConnected("LOADING Redis is loading")
    with pytest.raises(NotConnected, match="LOADING"):
        Fake(**{"HELLO": NO_HELLO, command: error}).greet()
    if command != "HELLO":
        with pytest.raises(BrokerError, match="BUSY"):
            Fake(**{"HELLO": NO_HELLO, command: Refused("BUSY Redis is busy")}).greet()


def test_what_does_not_matter_to_the_probes():
    for refused in (NOT_ALLOWED, Refused("OOM command not allowed"), Refused("ERR no")):
        assert Fake(EVAL=refused, BLMOVE=refused).greet().mode == "standalone"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("CROSSSLOT Keys in request don't hash to the same slot", "redis-cluster"),
        ("MOVED 866 127.0.0.1:7001", "redis-cluster"),
        ("ASK 866 127.0.0.1:7001", "redis-cluster"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "redis-cluster"),
        ("CLUSTERDOWN Hash slot not served", "redis-cluster"),
        ("READONLY You can't write against a read only replica.", "redis-replica"),
        ("UNBLOCKED force unblock from blocking operation", "redis-replica"),
        ("NOAUTH Authentication required.", "redis-login"),
        ("WRONGPASS invalid username-password pair", "redis-login"),
        ("NOPERM No permissions to access a key", "redis-permission"),
        ("ERR ACL failure in script: No permissions to access a key", "redis-permission"),
        ("ERR unknown command 'BLMOVE', with args", "redis-proxy"),
        ("ERR Unknown Redis command called from script script: x", "redis-proxy"),
        ("unsupported command 'blmove'", "redis-proxy"),
        # Words of others behind the quote say nothing.
        ("ERR wrong number of arguments for 'unknown command' command", None),
        ("LOADING Redis is loading the dataset in memory", None),
        ("OOM command not allowed when used memory > 'maxmemory'.", None),
        ("WRONGTYPE queuerelay:gate is a list, expected a hash", None),
        ("MOVEDON", None),
        ("", None),
    ],
)
def test_meaning(text, code):
    fault = meaning(text)
    assert (fault and fault.code) == code


def test_a_missing_right_says_what_it_was_wanted_for():
    text = "NOPERM No permissions to access a key"
    assert is_permission(text)
    said = explained(text, ("RPUSH", "resque:queue:q", b"a secret message"))
    assert said.startswith(f"{text} (RPUSH resque:queue:q); docs/operations.md, Users of Redis")
    assert "secret" not in said
    claim = commands.claim(Keys(), ["q"], ["t"], holder="h", lease=1.0)
    said = explained(text, claim.command())
    assert "(script claim queuerelay:gate resque:queue:q queuerelay:inflight:q " in said
    assert explained(text, claim.whole()) == said
    many = commands.claim(Keys(), list("abcdef"), ["t"], holder="h", lease=1.0)
    assert "...)" in explained(text, many.command())
    assert "(SCRIPT LOAD)" in explained(text, ("SCRIPT", "LOAD", "return 1"))
    assert "(AUTH)" in explained(text, ("AUTH", "u", "secret"))
    assert "(EVALSHA" not in explained(text, ("EVALSHA", "0" * 40, 0))
    assert explained("ERR no", ("AUTH", "u", "secret")) == "ERR no"


def test_who_is_master():
    assert who_is_master("m") == ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "m")
