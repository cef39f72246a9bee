"""Configuration: one frozen record, filled from defaults, then the TOML file, then options.

`OPTIONS` is the only place where names, defaults, units and help stand; the file, the command
line, `--help`, the start log and every error message come from it. No Twisted here: endpoint
strings are checked where they are used.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from queuerelay.broker import url
from queuerelay.errors import ConfigError
from queuerelay.wire.headers import is_token

_KiB: Final = 1024
_MiB: Final = 1024 * _KiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Sends requests to another queue; those conditions that are given must all hold."""

    queue: str
    #: Beginning of the target's path.
    path: str | None = None
    method: str | None = None
    #: Host without port, lower-case.
    host: str | None = None
    #: ``Name`` (the field is there) or ``Name: value`` (it has this value).
    header: str | None = None
    #: Seconds, or None for the relay's.
    deadline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayConfig:
    """The relay's part."""

    #: Twisted endpoint strings.
    listen: tuple[str, ...] = ("tcp:8000",)
    #: For requests that no route takes.
    queue: str = "requests"
    #: Seconds that a request may wait.
    deadline: float = 60.0
    #: Requests held at a time.
    max_held: int = 10_000
    #: Bytes held at a time, messages as they go to the queue.
    max_held_bytes: int = 256 * _MiB
    #: Bytes of one request's body.
    max_body: int = 16 * _MiB
    #: Messages on one queue.
    max_queue: int = 50_000
    #: Seconds that held requests get at shutdown.
    drain: float = 25.0
    #: File, or None for none.
    access_log: str | None = None
    #: Redis list that old workers answer on, or None for none.
    legacy_replies: str | None = None
    #: First match wins.
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All of it."""

    #: Where Redis is; see `queuerelay.broker.url.parse`. May contain a password.
    redis: str = "redis://localhost:6379/0"
    #: Of our own keys in Redis.
    prefix: str = "queuerelay:"
    relay: RelayConfig = field(default_factory=RelayConfig)


# --- What a value may be -------------------------------------------------------------------------
# A check takes the value and the name to show for it, and gives the value to keep.

Check = Callable[[object, str], Any]

#: Blanks, controls, and halves of characters: bytes of the command line that are not UTF-8.
_UNPRINTABLE: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def _text(expected: str, bad: re.Pattern[str] = _UNPRINTABLE, longest: int = 128) -> Check:
    def check(value: object, name: str) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= longest or bad.search(value):
            raise ConfigError.of(name, value, expected)
        return value

    return check


def _number(value: object, name: str, expected: str, lowest: float, highest: float) -> float:
    # True is an int for Python, and not a number of anything here; NaN is in no range.
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not lowest <= value <= highest
    ):
        raise ConfigError.of(name, value, expected)
    return value


def _seconds(lowest: float, highest: float) -> Check:
    expected = f"seconds from {lowest:g} to {highest:g}"

    def check(value: object, name: str) -> float:
        return float(_number(value, name, expected, lowest, highest))

    return check


def _whole(unit: str, lowest: int, highest: int) -> Check:
    expected = f"a whole number of {unit} from {lowest} to {highest}"

    def check(value: object, name: str) -> int:
        number = _number(value, name, expected, lowest, highest)
        if not isinstance(number, int):
            raise ConfigError.of(name, value, expected)
        return number

    return check


def _redis(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ConfigError.of(name, value, "the address of a Redis server")
    url.parse(value, option=name)
    return value


def _endpoints(value: object, name: str) -> tuple[str, ...]:
    expected = "endpoints such as 'tcp:8000' or 'unix:/run/queuerelay.sock'"
    if not isinstance(value, list) or not value:
        raise ConfigError.of(name, value, f"a list of {expected}")
    for one in value:
        if not isinstance(one, str) or not one.strip():
            raise ConfigError.of(name, one, expected)
    return tuple(value)


_queue: Final = _text(
    "a queue name of 1 to 128 characters without ':', ',' and blanks",
    re.compile(_UNPRINTABLE.pattern + "|[:,]"),
)
_prefix: Final = _text("1 to 128 characters without blanks, such as 'queuerelay:'")
_list_name: Final = _text("the name of a Redis list, such as 'responses'")
_file: Final = _text("the path of a file", re.compile(r"[\x00-\x1f\x7f]"), 4096)
_deadline: Final = _seconds(0.001, 86400)

_path: Final = _text(
    "the beginning of a path, such as '/checkout/'", re.compile(r"^[^/]|[\s?#\x00-\x1f\x7f]"), 2048
)
_host: Final = _text(
    "a host name or address without port",
    re.compile(r"[\s/@,\x00-\x1f\x7f]|^[^\[:]+:[^:]*$|\]:"),
    253,
)


def _method(value: object, name: str) -> str:
    # Methods are case-sensitive (RFC 9110 9.1), and all that are registered are upper-case.
    if not isinstance(value, str) or not is_token(value) or value != value.upper():
        raise ConfigError.of(name, value, "a method such as 'POST'")
    return value


def _header(value: object, name: str) -> str:
    if isinstance(value, str):
        field, colon, text = value.partition(":")
        text = text.strip(" \t")
        if is_token(field) and bool(colon) == bool(text) and text.isprintable():
            return value
    raise ConfigError.of(name, value, "a header as 'Name' or 'Name: value'")


# --- The table -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting, in the file and on the command line."""

    #: On the command line, without the leading dashes.
    name: str
    #: What it does, without unit and default.
    help: str
    #: Makes a value of the command line's text.
    type: Callable[[str], object] = str
    #: Raises `ConfigError`, or gives the value to keep.
    check: Check
    #: The table of the file that it stands in, "" for the top.
    table: str = "relay"
    #: Of the value; "" where it has none.
    unit: str = ""
    #: Whether it may be given more than once.
    repeatable: bool = False
    #: Whether it is a limit that the start log shows.
    limit: bool = False

    @property
    def key(self) -> str:
        """Its key in the file and its field in the record."""
        return self.name.replace("-", "_")

    @property
    def dotted(self) -> str:
        """Its full name in the file, as errors show it."""
        return f"{self.table}.{self.key}" if self.table else self.key

    @property
    def default(self) -> Any:
        """What it is where nobody says otherwise; None for "off"."""
        return getattr(RelayConfig() if self.table else Config(), self.key)

    def parse(self, given: object) -> object:
        """The value that the command line's text stands for; what cannot be one stays text, and
        `check` refuses it.
        """
        if self.repeatable:
            return given if isinstance(given, list) else [given]
        # Python refuses numbers of thousands of digits, and takes "1_000", in ways of its own.
        if not isinstance(given, str) or len(given) > 32 or "_" in given:
            return given
        try:
            return self.type(given)
        except ValueError:
            return given

    @property
    def described(self) -> str:
        """Its help with unit and default, as ``--help`` shows it."""
        default = self.default
        if self.repeatable:
            default = ", ".join(default)
        if isinstance(default, float):
            default = f"{default:g}"
        particulars = [self.unit] if self.unit else []
        particulars += ["repeatable"] if self.repeatable else []
        particulars += ["default: off" if default is None else f"default: {default}"]
        return f"{self.help} [{'; '.join(particulars)}]"


OPTIONS: Final = (
    Option(
        name="redis",
        table="",
        help="localhost, HOST:PORT, redis://[USER:PASSWORD@]HOST:PORT/DB, rediss://..., "
        "unix:///PATH, or embedded[:DIR] for a Valkey server of our own that keeps its data "
        "in DIR",
        check=_redis,
    ),
    Option(name="prefix", table="", help="Of our own keys in Redis", check=_prefix),
    Option(
        name="listen",
        help="Where clients connect, a Twisted endpoint",
        check=_endpoints,
        unit="endpoint",
        repeatable=True,
    ),
    Option(name="queue", help="Queue for requests that no route takes", check=_queue),
    Option(
        name="deadline",
        help="How long a request may wait for its answer",
        type=float,
        check=_deadline,
        unit="seconds",
        limit=True,
    ),
    Option(
        name="max-held",
        help="How many requests may wait at a time",
        type=int,
        check=_whole("requests", 1, 10_000_000),
        unit="requests",
        limit=True,
    ),
    Option(
        name="max-held-bytes",
        help="How much memory waiting requests may take",
        type=int,
        check=_whole("bytes", 1, 2**50),
        unit="bytes",
        limit=True,
    ),
    Option(
        name="max-body",
        help="How large the body of one request may be",
        type=int,
        # As base64 it must stay below the 512 MiB that Redis takes for one value.
        check=_whole("bytes", 1, 256 * _MiB),
        unit="bytes",
        limit=True,
    ),
    Option(
        name="max-queue",
        help="How long one queue may become",
        type=int,
        check=_whole("messages", 1, 2**40),
        unit="messages",
        limit=True,
    ),
    Option(
        name="drain",
        help="How long a shutdown waits for answers",
        type=float,
        check=_seconds(0, 86400),
        unit="seconds",
        limit=True,
    ),
    Option(name="access-log", help="File that gets a line for each request", check=_file),
    Option(
        name="legacy-replies",
        help="Redis list on which old workers answer, such as responses",
        check=_list_name,
    ),
)

#: Keys of a ``[[relay.route]]``; they are in the file only.
_ROUTE: Final[Mapping[str, Check]] = {
    "queue": _queue,
    "path": _path,
    "method": _method,
    "host": _host,
    "header": _header,
    "deadline": _deadline,
}


# --- Reading -------------------------------------------------------------------------------------


def load(path: str | None = None, options: Mapping[str, object] | None = None) -> Config:
    """The configuration: the defaults, then the file at `path`, then `options`.

    `options` are the command line's: names as in `OPTIONS`, each with its text, with a list of
    texts where it may be repeated, or with None or an empty list where it was not given.

    Raises `ConfigError`, one line that names option, value and what was expected.
    """
    values: dict[str, Any] = {}
    names: dict[str, str] = {option.dotted: option.dotted for option in OPTIONS}
    routes: tuple[Route, ...] = ()
    if path is not None:
        document = _read(path)
        top = [option for option in OPTIONS if not option.table]
        relay = [option for option in OPTIONS if option.table == "relay"]
        _refuse_unknown(document, [*(option.key for option in top), "relay"], "")
        table = _table(document.get("relay", {}), "relay")
        _refuse_unknown(table, [*(option.key for option in relay), "route"], "relay.")
        for group, source in ((top, document), (relay, table)):
            for option in group:
                if option.key in source:
                    values[option.dotted] = option.check(source[option.key], option.dotted)
        routes = _routes(table.get("route", []))
    known = {option.name: option for option in OPTIONS}
    _refuse_unknown(options or {}, known, "--")
    for name, given in (options or {}).items():
        if given is not None and given != []:
            option = known[name]
            names[option.dotted] = f"--{name}"
            values[option.dotted] = option.check(option.parse(given), f"--{name}")
    found: dict[str, dict[str, Any]] = {"": {}, "relay": {}}
    for option in OPTIONS:
        if option.dotted in values:
            found[option.table][option.key] = values[option.dotted]
    config = Config(**found[""], relay=RelayConfig(**found["relay"], routes=routes))
    _check_together(config, names)
    return config


def _check_together(config: Config, names: Mapping[str, str]) -> None:
    relay = config.relay
    if relay.max_held_bytes < relay.max_body:
        raise ConfigError.of(
            names["relay.max_held_bytes"],
            relay.max_held_bytes,
            f"at least the {relay.max_body} bytes of {names['relay.max_body']}",
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


def _table(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError.of(name, value, f"a table: [{name}]")
    return value


def _routes(value: object) -> tuple[Route, ...]:
    """The routes; errors number them from 1, as people count."""
    if not isinstance(value, list):
        raise ConfigError.of("relay.route", value, "tables: [[relay.route]]")
    routes = []
    for number, one in enumerate(value, 1):
        name = f"relay.route[{number}]"
        if not isinstance(one, dict):
            raise ConfigError.of(name, one, "a table: [[relay.route]]")
        _refuse_unknown(one, _ROUTE, f"{name}.")
        checked = {key: _ROUTE[key](text, f"{name}.{key}") for key, text in one.items()}
        if "queue" not in checked:
            raise ConfigError.of(f"{name}.queue", None, "the name of a queue")
        if not checked.keys() & {"path", "method", "host", "header"}:
            raise ConfigError.of(name, one, "at least one of path, method, host and header")
        route = Route(**checked)
        if route.host is not None:
            route = replace(route, host=route.host.lower())
        routes.append(route)
    return tuple(routes)


# --- Showing -------------------------------------------------------------------------------------


def describe(config: Config) -> list[tuple[str, str]]:
    """The limits in force, ``(name, value with its unit)``, for the start log."""
    return [
        (option.name, _with_unit(getattr(config.relay, option.key), option.unit))
        for option in OPTIONS
        if option.limit
    ]


def _with_unit(value: float, unit: str) -> str:
    if unit == "bytes" and value % _KiB == 0:
        size, scaled = (value // _MiB, "MiB") if value % _MiB == 0 else (value // _KiB, "KiB")
        return f"{value} bytes ({size} {scaled})"
    return f"{value:g} {unit}" if isinstance(value, float) else f"{value} {unit}"
