"""Reading: from the file and the command line to one `Config`, or one `ConfigError`. Invariants:

1. Defaults, then the file, then options: the last one that says something wins. A list replaces
   the list before it. Where Redis is, the environment may say before the file (`redis_source`).
2. All of the file is checked, even where an option wins; what has no entry in `options` is refused,
   with the name that may have been meant.
3. Each value is checked by itself first, then what must fit together: within a route, within a
   pool, and over all.
4. An error has the name that the operator wrote: ``relay.max_body`` or ``pool[2].queues`` in the
   file, ``--max-body`` on the command line.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from queuerelay.config.command import Template
from queuerelay.config.options import OPTIONS
from queuerelay.config.shape import (
    DEFAULT_POOL,
    OFF,
    ROLES,
    Config,
    PoolConfig,
    RelayConfig,
    Route,
    StatusConfig,
)
from queuerelay.config.tables import POOL_KEYS, RESIDENT_ONLY, ROUTE_KEYS, SCRIPT_ONLY
from queuerelay.config.values import COMMAND, Check
from queuerelay.config.values import redis as check_redis
from queuerelay.errors import ConfigError
from queuerelay.redis_source import Source, first, of_environment
from queuerelay.wire.destination import overlap
from queuerelay.wire.failure import Kept
from queuerelay.wire.keys import Keys


def load(
    path: str | None = None,
    options: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """The configuration: the defaults, then `environment`, then the file at `path`, then `options`.

    `options` are the command line's: names as in `OPTIONS`, each with its text, with a list of
    texts where it may be repeated, or with None or an empty list where it was not given. Of
    `environment` only what says where Redis is counts.

    Raises `ConfigError`, one line that names option, value and what was expected.
    """
    values: dict[str, Any] = {}
    routes: tuple[Route, ...] = ()
    pools: tuple[PoolConfig, ...] = ()
    if path is not None:
        document = _read(path)
        values = _values(document)
        routes = _routes(document.get("relay", {}).get("route", []))
        pools = _pools(document.get("pool", []))
    sources = [_source(values, "redis", "redis_file"), of_environment(environment or {})]
    names: dict[str, str] = {option.dotted: option.dotted for option in OPTIONS}
    known = {option.name: option for option in OPTIONS}
    _refuse_unknown(options or {}, known, "--")
    for name, given in (options or {}).items():
        if given is not None and given != []:
            option = known[name]
            names[option.dotted] = f"--{name}"
            values[option.dotted] = option.check(option.parse(given), f"--{name}")
    _find_redis(values, [_source(values, "--redis", "--redis-file"), *sources])
    config = _made(values, routes, pools)
    _check_together(config, names)
    return config


def _source(values: dict[str, Any], name: str, file_name: str) -> Source:
    """What has been said so far about the address of Redis, taken out of `values`."""
    return Source(
        name=name,
        file_name=file_name,
        address=values.pop("redis", None),
        file=values.pop("redis_file", None),
    )


def _find_redis(values: dict[str, Any], sources: Sequence[Source]) -> None:
    """Put the address of Redis into `values`, and the file that it is from."""
    found = first(sources)
    if found is not None:
        values["redis"] = check_redis(*found)
        said = next(one for one in sources if one.address or one.file)
        values["redis_file"] = said.file


def _made(
    values: Mapping[str, Any], routes: tuple[Route, ...], pools: tuple[PoolConfig, ...]
) -> Config:
    """The record for values by their full names, routes, and the pools of the file."""
    tables = ("", "relay", "pool", "status", "failed")
    found: dict[str, dict[str, Any]] = {name: {} for name in tables}
    for option in OPTIONS:
        if option.dotted in values:
            found[option.table][option.key] = values[option.dotted]
    relay = RelayConfig(**found["relay"], routes=routes)
    pools = _with_default_pool(pools, found["pool"], relay.queue)
    status = StatusConfig(**found["status"])
    roles = {"relay": True, "pool": bool(pools), "status": status.listen is not None}
    found[""].setdefault("role", tuple(role for role in ROLES if roles[role]))
    failed = Kept(**found["failed"])
    return Config(**found[""], relay=relay, pools=pools, status=status, failed=failed)


def _check_together(config: Config, names: Mapping[str, str]) -> None:
    _check_reply_prefix(config, names)
    relay = config.relay
    if relay.max_held_bytes < relay.max_body:
        raise ConfigError.of(
            names["relay.max_held_bytes"],
            relay.max_held_bytes,
            f"at least the {relay.max_body} bytes of {names['relay.max_body']}",
        )
    if relay.max_header < relay.max_line:
        raise ConfigError.of(
            names["relay.max_header"],
            relay.max_header,
            f"at least the {relay.max_line} bytes of {names['relay.max_line']}",
        )
    if "pool" in config.role and not config.pools:
        raise ConfigError.of(names["role"], ",".join(config.role), "a [[pool]] or --worker for it")
    if "status" in config.role and config.status.listen is None:
        raise ConfigError.of(names["status.listen"], OFF, "an endpoint for the role status")
    if config.status.readers != "anybody" and config.status.credentials is None:
        raise ConfigError.of(
            names["status.readers"],
            config.status.readers,
            f"a file of {names['status.credentials']} for it",
        )


def _check_reply_prefix(config: Config, names: Mapping[str, str]) -> None:
    taken = overlap(config.reply_prefix, Keys(prefix=config.prefix))
    legacy = config.relay.legacy_replies
    if taken is None and legacy is not None and legacy.startswith(config.reply_prefix):
        taken = legacy
    if taken is not None:
        raise ConfigError.of(
            names["reply_prefix"], config.reply_prefix, f"a prefix apart from that of {taken!r}"
        )


def _read(path: str) -> dict[str, Any]:
    """The file as TOML has it; `ConfigError` with file, line and reason where it cannot be."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{path}: {reason}") from error
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply") from error
    except ValueError as error:
        # TOMLDecodeError is one, and so is a number with thousands of digits.
        reason = " ".join(str(error).split())
        at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", reason)
        if at is None:
            raise ConfigError(f"{path}: {reason}") from error
        line = int(at[1]) if at[1] else content.count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: {reason[: at.start()]}") from error


def _refuse_unknown(given: Iterable[str], known: Iterable[str], prefix: str) -> None:
    names = list(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name.replace("-", "_"), names, 1)
            near = near or difflib.get_close_matches(name.replace("_", "-"), names, 1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else ""
            shown = name if name.isprintable() else repr(name)
            raise ConfigError(f"{prefix}{shown}: no such option{hint}")


#: The tables of the file with options in them, and what else may stand in each.
_TABLES: Final = {
    "": ("relay", "pool", "status", "failed"),
    "relay": ("route",),
    "status": (),
    "failed": (),
}


def _values(document: dict[str, Any]) -> dict[str, Any]:
    """The values of the file that have an option, checked, by their full names."""
    tables = {}
    for name, others in _TABLES.items():
        table = document.get(name, {}) if name else document
        if not isinstance(table, dict):
            raise ConfigError.of(name, table, f"a table: [{name}]")
        known = [option.key for option in OPTIONS if option.table == name]
        _refuse_unknown(table, [*known, *others], f"{name}." if name else "")
        tables[name] = table
    return {
        option.dotted: option.check(tables[option.table][option.key], option.dotted)
        for option in OPTIONS
        if option.key in tables.get(option.table, {})
    }


def _each(
    value: object, name: str, keys: Mapping[str, Check]
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The name of each table in the list `value`, the table itself, and its values checked. Errors
    number them from 1, as people count.
    """
    if not isinstance(value, list):
        raise ConfigError.of(name, value, f"tables: [[{name}]]")
    for number, one in enumerate(value, 1):
        numbered = f"{name}[{number}]"
        if not isinstance(one, dict):
            raise ConfigError.of(numbered, one, f"a table: [[{name}]]")
        _refuse_unknown(one, keys, f"{numbered}.")
        checked = {key: keys[key](given, f"{numbered}.{key}") for key, given in one.items()}
        yield numbered, one, checked


def _routes(value: object) -> tuple[Route, ...]:
    """The routes of the file."""
    routes = []
    for name, table, given in _each(value, "relay.route", ROUTE_KEYS):
        if "queue" not in given:
            raise ConfigError.of(f"{name}.queue", None, "the name of a queue")
        if not given.keys() & {"path", "method", "host", "header"}:
            raise ConfigError.of(name, table, "at least one of path, method, host and header")
        if "host" in given:
            given["host"] = given["host"].lower()
        routes.append(Route(**given))
    return tuple(routes)


def _pools(value: object) -> tuple[PoolConfig, ...]:
    """The pools of the file."""
    pools: list[PoolConfig] = []
    for name, _, given in _each(value, "pool", POOL_KEYS):
        pool = _pool(given, name)
        if pool.name in {other.name for other in pools}:
            raise ConfigError.of(f"{name}.name", pool.name, "a name that no other pool has")
        pools.append(pool)
    return tuple(pools)


def _pool(given: dict[str, Any], name: str) -> PoolConfig:
    """The pool for values that are right each by itself."""

    def refuse(key: str, expected: str) -> ConfigError:
        return ConfigError.of(f"{name}.{key}", given.get(key), expected)

    resident = given.get("resident", False)
    if "name" not in given:
        raise refuse("name", "a name for the pool")
    if "command" not in given:
        raise refuse("command", COMMAND)
    Template(given["command"], option=f"{name}.command", fields=not resident)
    for key in SCRIPT_ONLY if resident else RESIDENT_ONLY:
        if key in given:
            where = "with" if resident else "without"
            raise refuse(key, f"no such key: it does nothing {where} resident = true")
    if "queues" not in given and not resident:
        raise refuse("queues", "a list of queue names")
    queues = given.setdefault("queues", ())
    if "weights" in given and len(given["weights"]) != len(queues):
        raise refuse("weights", f"one for each of the {len(queues)} queues")
    _settle_size(given, refuse)
    return PoolConfig(**given)


def _settle_size(given: dict[str, Any], refuse: Callable[[str, str], ConfigError]) -> None:
    """Either ``size`` or ``min`` and ``max``, and all three filled."""
    if "max" in given:
        if "size" in given:
            raise refuse("size", "either size or min and max")
        given["size"] = given.setdefault("min", 1)
        if given["min"] > given["max"]:
            raise refuse("min", f"at most the {given['max']} of max")
        return
    for key in ("min", "grow_after", "shrink_after"):
        if key in given:
            raise refuse(key, "max beside it")
    given["min"] = given["max"] = given.setdefault("size", 1)


def _with_default_pool(
    pools: tuple[PoolConfig, ...], given: Mapping[str, Any], queue: str
) -> tuple[PoolConfig, ...]:
    """`pools` and that of ``--worker``, if there is one; its queue is `queue` by default."""
    if "worker" not in given:
        for key, value in given.items():
            raise ConfigError.of(f"--{key.replace('_', '-')}", value, "--worker beside it")
        return pools
    command = given["worker"]
    if DEFAULT_POOL in {pool.name for pool in pools}:
        raise ConfigError.of(
            "--worker", " ".join(command), f"no [[pool]] named {DEFAULT_POOL!r} in the file"
        )
    size = given.get("workers", 1)
    queues = given.get("worker_queues", (queue,))
    pool = PoolConfig(
        name=DEFAULT_POOL, queues=queues, command=command, size=size, min=size, max=size
    )
    return (*pools, pool)
