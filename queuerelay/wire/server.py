"""A server of Redis, by what it says when it is entered: whether it is fit, and what its errors
mean. Broker and workers enter alike, each over its own client.

What is no single server of a known version with scripts and blocking commands is refused here, so
that nobody works for hours with one that fails each script.
"""

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from queuerelay.errors import BrokerError, Refused, Unusable
from queuerelay.wire import scripts
from queuerelay.wire.commands import Command
from queuerelay.wire.keys import Keys
from queuerelay.wire.url import RedisUrl

#: Oldest servers that have what we use: flags on scripts, EXPIRE NX. Valkey 7.2 is Redis 7.2.
OLDEST: Final = {"redis": (7, 0), "valkey": (7, 2)}
#: Where the rights of each role are written.
RIGHTS: Final = "docs/operations.md, Users of Redis, has the ACL line of each role"
#: Keys that an error names; a claim has five for each queue.
_KEYS: Final = 8

_WANTED: Final = "a single server without cluster mode is needed, alone or behind Sentinel"
#: Beginnings of what only a cluster says.
_CLUSTER: Final = ("CROSSSLOT", "MOVED ", "ASK ", "CLUSTERDOWN", "TRYAGAIN")
#: What a command is answered with where it is not known, by servers and by proxies.
_UNKNOWN: Final = re.compile(r"\b(unknown|unsupported)\b.*\bcommand\b|\bcommand\b.*\bunsupported\b")

#: Commands in one round trip; the answers are sent in, an error as a `BrokerError` among them.
Greeting = Generator[Sequence[Command], Sequence[Any], "Server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that has been entered and is fit."""

    #: ``Redis 7.0.15`` or ``Valkey 9.1.0``.
    version: str
    #: ``standalone``, ``cluster`` or ``sentinel``; "" where it does not say.
    mode: str
    #: ``master`` or ``replica``; "" where it does not say.
    role: str


def greeting(url: RedisUrl, *, name: str, keys: Keys) -> Greeting:
    """Enter the server of `url` and look whether it is fit; raises `BrokerError` where it is not.

    `name` shows in ``CLIENT LIST``. HELLO tells all that has to be known, and no ACL forbids it;
    INFO and ROLE are asked where it is not known.
    """
    if url.username or url.password is not None:
        _done(*(yield [login(url)]))
    named, hello = yield [("CLIENT", "SETNAME", name), ("HELLO",)]
    if not (_forbidden(named) or _not_known(named)):
        _done(named)
    server = of_hello(hello)
    if not server.version:
        (info,) = yield [("INFO", "server")]
        server = _of_info(info)
    _check_mode(server)
    _check_version(server)
    if server.role != "master":
        (role,) = yield [("ROLE",)]
        server = Server(version=server.version, mode=server.mode, role=_role(role, server))
    if url.db:
        _done(*(yield [("SELECT", url.db)]))
    # The first shows whether scripts are known and may have keys of any slot: some proxies hide
    # that there is a cluster behind them. The second has too few arguments to do anything.
    names = (keys.gate, keys.inflight("probe"))
    for answer in (yield [("EVAL", "return 1", 2, *names), ("BLMOVE", names[0])]):
        fault = meaning(str(answer.args[0])) if isinstance(answer, BrokerError) else None
        if fault is not None and fault.code in ("redis-cluster", "redis-proxy"):
            raise fault
    return server


def login(url: RedisUrl) -> Command:
    """Says user and password."""
    return ("AUTH", *((url.username,) if url.username else ()), url.password or "")


def who_is_master(service: str) -> Command:
    """Asks a Sentinel for its master; the answer is for `url.address_of`."""
    return ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)


def names(commands: Sequence[Command]) -> str:
    """The names of some commands, for an error."""
    return ", ".join(str(command[0]) for command in commands)


def meaning(text: str) -> Unusable | None:
    """What an error `text` says of the server as a whole; None where it says nothing of it."""
    if text.startswith(_CLUSTER):
        return Unusable(f"it is a cluster ({text}), and {_WANTED}", code="redis-cluster")
    if text.startswith(("READONLY", "UNBLOCKED", "MASTERDOWN")):
        return Unusable(text, code="redis-replica")
    if text.startswith(("NOAUTH", "WRONGPASS")):
        return Unusable(text, code="redis-login")
    if is_permission(text):
        return Unusable(text, code="redis-permission")
    if _UNKNOWN.search(text.partition("'")[0].lower()):
        needed = "a server is needed that knows scripts and blocking commands, and no proxy"
        return Unusable(f"it does not know a command ({text}): {needed}", code="redis-proxy")
    return None


def is_permission(text: str) -> bool:
    """Whether an error says that the user lacks a right; within a script it begins otherwise."""
    return text.startswith("NOPERM") or "ACL failure in script" in text


def explained(text: str, command: Sequence[Any]) -> str:
    """The error `text` of `command`; where a right is missing, with what it was wanted for."""
    if not is_permission(text):
        return text
    return f"{text.strip()} ({_shown(command)}); {RIGHTS}"


def _shown(command: Sequence[Any]) -> str:
    """A command for an error: its name and its keys, no values."""
    name, *arguments = map(_text, command[:3])
    if name in ("EVALSHA", "EVAL"):
        count = int(command[2])
        keys = [_text(key) for key in command[3 : 3 + min(count, _KEYS)]]
        more = ["..."] if count > _KEYS else []
        return " ".join([f"script {_script(_text(command[1]))}", *keys, *more])
    # The second word is a key or a subcommand, but for AUTH.
    return name if name == "AUTH" else " ".join([name, *arguments[:1]])


def _script(text: str) -> str:
    known = {name: one for one in scripts.NAMES for name in (scripts.sha(one), scripts.source(one))}
    return known.get(text, "of ours")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _done(answer: Any) -> None:
    if isinstance(answer, BrokerError):
        raise answer


def _forbidden(answer: Any) -> bool:
    return isinstance(answer, Refused) and is_permission(str(answer.args[0]))


def _not_known(answer: Any) -> bool:
    if not isinstance(answer, Refused):
        return False
    fault = meaning(str(answer.args[0]))
    return fault is not None and fault.code == "redis-proxy"


def of_hello(answer: Any) -> Server:
    """What HELLO tells; nothing where it is not known, or by nobody answered as it should."""
    if isinstance(answer, BrokerError) and not isinstance(answer, Refused):
        raise answer
    if not isinstance(answer, list):
        return Server(version="", mode="", role="")
    told = {_text(name): value for name, value in zip(answer[::2], answer[1::2], strict=False)}
    product, version = _text(told.get("server", "")), _text(told.get("version", ""))
    return Server(
        version=f"{product.capitalize()} {version}" if re.match(r"\d+\.\d+", version) else "",
        mode=_text(told.get("mode", "")),
        role=_text(told.get("role", "")),
    )


def _of_info(answer: Any) -> Server:
    _done(answer)
    if not isinstance(answer, bytes):
        raise Unusable("it answers INFO as no Redis does")
    found = info_fields(answer)
    version = version_of(found)
    if version is None:
        raise Unusable("its INFO names no redis_version")
    return Server(version=version, mode=mode_of(found), role="")


def info_fields(answer: bytes) -> dict[str, str]:
    """The fields of an answer to INFO."""
    text = answer.decode("utf-8", "replace")
    return dict(re.findall(r"^(\w+):([^\r\n]*)", text, re.MULTILINE))


def version_of(info: dict[str, str]) -> str | None:
    """Product and version by the fields of INFO; None where they do not say."""
    # Valkey says its own version, and beside it the one of Redis that it stands for.
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}" if "redis_version" in info else None


def mode_of(info: dict[str, str]) -> str:
    """``standalone``, ``cluster`` or ``sentinel`` by the fields of INFO."""
    return info.get("server_mode") or info.get("redis_mode", "")


def _check_mode(server: Server) -> None:
    if server.mode == "cluster":
        raise Unusable(
            f"{server.version} is in cluster mode, and {_WANTED}: cluster-enabled no",
            code="redis-cluster",
        )
    if server.mode == "sentinel":
        raise Unusable("it is a sentinel, and a master is needed: sentinel://HOST:PORT/NAME")


def _check_version(server: Server) -> None:
    product, _, version = server.version.partition(" ")
    parts = re.match(r"(\d+)\.(\d+)", version)
    if parts is None:
        raise Unusable(f"its version is {version[:40]!r}")
    if (int(parts[1]), int(parts[2])) < OLDEST.get(product.lower(), OLDEST["redis"]):
        raise Unusable(
            f"version {version} is too old, at least Redis 7.0 or Valkey 7.2 is needed",
            code="redis-version",
        )


def _role(answer: Any, server: Server) -> str:
    """The role by an answer to ROLE; raises `Unusable` where it is no master's."""
    if isinstance(answer, Refused) and server.role:
        # HELLO has said it; only the master's address stays unknown.
        raise Unusable(f"it is a {server.role}, and the master is needed", code="redis-replica")
    if _forbidden(answer) or _not_known(answer):
        # Neither HELLO nor ROLE: the first write will tell.
        return ""
    _done(answer)
    name, *details = answer if isinstance(answer, list) and answer else [answer]
    if not isinstance(name, bytes):
        raise Unusable("it answers ROLE as no Redis does")
    if name == b"slave":
        host, port = (*details, b"?", 0)[:2]
        raise Unusable(
            f"it is a replica of {_text(host)}:{port}, and the master is needed",
            code="redis-replica",
        )
    if name != b"master":
        raise Unusable(f"it is a {_text(name)[:40]}, and a master is needed")
    return "master"
