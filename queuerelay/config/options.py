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
from ipaddress import ip_network
from typing import Any, Final

from queuerelay.broker import url
from queuerelay.errors import ConfigError
from queuerelay.pool.command import Template, split_command
from queuerelay.pool.exits import CONFIGURABLE, Outcome
from queuerelay.wire.forwarded import FORWARDED, UNIX, X_FORWARDED
from queuerelay.wire.headers import is_token

_KiB: Final = 1024
_MiB: Final = 1024 * _KiB

#: What a process may be, and all of it at once.
ROLES: Final = ("relay", "pool", "status")
#: Stands for no listener.
OFF: Final = "off"
#: The pool that ``--worker`` makes.
DEFAULT_POOL: Final = "default"


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
    #: Clients connected at a time, None for what the open files allow.
    max_connections: int | None = None
    #: Bytes of a request line or a header field.
    max_line: int = 8 * _KiB
    #: Bytes of request line and header section.
    max_header: int = 32 * _KiB
    #: Header fields of one request.
    max_fields: int = 100
    #: Seconds from the first byte of a request to the end of its header section.
    header_time: float = 10.0
    #: Seconds in which a body must get on.
    body_time: float = 30.0
    #: Seconds between two requests of a connection.
    idle: float = 60.0
    #: Seconds that held requests get at shutdown.
    drain: float = 25.0
    #: Seconds between two frames of a streamed reply.
    frame_timeout: float = 60.0
    #: Seconds for which a client may take nothing of its answer.
    send_stall: float = 60.0
    #: Bytes by which the client of a streamed answer may be behind.
    max_unsent: int = _MiB
    #: File, or None for none.
    access_log: str | None = None
    #: Directory with pages for errors, or None for none.
    error_pages: str | None = None
    #: Whether answers tell how long they took.
    server_timing: bool = True
    #: Networks of proxies that say who the client is, and ``unix`` for Unix sockets.
    trusted_proxies: tuple[str, ...] = ()
    #: The header fields in which they say it, lower-case.
    proxy_fields: tuple[str, ...] = X_FORWARDED[:3]
    #: Redis list that old workers answer on, or None for none.
    legacy_replies: str | None = None
    #: First match wins.
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """One pool: scripts that run for each message, or resident processes."""

    #: Unique among the pools; letters, digits, ``.``, ``_`` and ``-``.
    name: str
    #: In the order of priority; may be empty for a resident pool.
    queues: tuple[str, ...]
    #: argv, with ``{field}`` for a scalar of the message; see `queuerelay.pool.command`.
    command: tuple[str, ...]
    #: Slots at the start; `min` and `max` are the same unless the pool follows its backlog.
    size: int = 1
    min: int = 1
    max: int = 1
    #: Seconds that the oldest message may wait before a slot is added.
    grow_after: float = 5.0
    #: Seconds that a slot may be idle before it is taken away.
    shrink_after: float = 60.0
    #: Seconds that a script may run.
    timeout: float = 300.0
    #: Tries of a message in all.
    tries: int = 3
    #: Seconds that a message is this process's alone without a word of it: it says one each third,
    #: and when it is dead others wait so long before they take the message over.
    lease: float = 15.0
    #: Seconds from TERM to KILL.
    grace: float = 10.0
    #: Whether the processes talk to Redis themselves.
    resident: bool = False
    #: What tells the outcome: ``exit`` or ``stdout``.
    status: str = "exit"
    #: Whether a script whose client left may ``finish``, or is to ``kill``.
    client_gone: str = "finish"
    #: Directory that scripts run in, None for the daemon's.
    cwd: str | None = None
    #: Variables of the scripts' environment.
    env: Mapping[str, str] = field(default_factory=dict)
    #: Names of the daemon's variables that they get too.
    pass_env: tuple[str, ...] = ()
    #: One for each queue, so that none starves; empty for strict order.
    weights: tuple[float, ...] = ()
    #: Bytes of address space of one process, None for no limit of ours.
    rlimit_as: int | None = None
    #: Seconds of processor time of one process.
    rlimit_cpu: int | None = None
    #: Open files of one process.
    rlimit_nofile: int | None = None
    #: Exit status to outcome, before the defaults.
    exits: Mapping[int, Outcome] = field(default_factory=dict)
    #: Bytes that a script may print.
    max_output: int = 64 * _MiB
    #: Seconds after which a resident process is replaced, None for never.
    recycle_after: float | None = None
    #: Bytes of resident memory above which a resident process is replaced, None for never.
    recycle_memory: int | None = None
    #: Beginning of the path that stands for the script (RFC 3875 4.1.13).
    script_name: str = ""
    #: File that php-cgi shall run, None for other scripts.
    script_filename: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusConfig:
    """The status listener's part."""

    #: A Twisted endpoint string, None for no listener.
    listen: str | None = "tcp:8080:interface=127.0.0.1"
    #: File with the credentials that actions need; without one there are no actions.
    credentials: str | None = None
    #: Names, without port, under which it may be asked beside addresses and localhost.
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All of it."""

    #: Where Redis is; see `queuerelay.broker.url.parse`. May contain a password.
    redis: str = "redis://localhost:6379/0"
    #: Of our own keys in Redis.
    prefix: str = "queuerelay:"
    #: Which of `ROLES` this process has.
    role: tuple[str, ...] = ("relay", "status")
    relay: RelayConfig = field(default_factory=RelayConfig)
    #: In the order of the file, that of ``--worker`` last.
    pools: tuple[PoolConfig, ...] = ()
    status: StatusConfig = field(default_factory=StatusConfig)


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


def _status_endpoint(value: object, name: str) -> str | None:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError.of(name, value, "an endpoint such as 'tcp:8080', or 'off'")
    return None if value == OFF else value


_queue: Final = _text(
    "a queue name of 1 to 128 characters without ':', ',' and blanks",
    re.compile(_UNPRINTABLE.pattern + "|[:,]"),
)
_prefix: Final = _text("1 to 128 characters without blanks, such as 'queuerelay:'")
_list_name: Final = _text("the name of a Redis list, such as 'responses'")
_file: Final = _text("the path of a file", re.compile(r"[\x00-\x1f\x7f]"), 4096)
_directory: Final = _text("the path of a directory", re.compile(r"[\x00-\x1f\x7f]"), 4096)
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


def _one_of(*known: str) -> Check:
    expected = " or ".join(repr(one) for one in known)

    def check(value: object, name: str) -> str:
        if not isinstance(value, str) or value not in known:
            near = difflib.get_close_matches(value, known, 1) if isinstance(value, str) else []
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError.of(name, value, expected + hint)
        return value

    return check


def _several(check: Check, expected: str) -> Check:
    """A list of different values, at least one."""

    def check_all(value: object, name: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise ConfigError.of(name, value, f"a list of {expected}")
        checked = tuple(check(one, name) for one in value)
        if len(set(checked)) < len(checked):
            raise ConfigError.of(name, value, f"a list of {expected}, each once")
        return checked

    return check_all


def _network(value: object, name: str) -> str:
    if value == UNIX:
        return UNIX
    if isinstance(value, str) and len(value) <= 64:
        try:
            # Of the whole Internet nothing could be believed.
            if ip_network(value).prefixlen > 0:
                return value
        except ValueError:
            pass
    raise ConfigError.of(
        name, value, "a network such as '10.0.0.0/8', not the whole Internet, or 'unix'"
    )


def _proxy_field(value: object, name: str) -> str:
    lowered = value.lower() if isinstance(value, str) else value
    return str(_proxy_field_name(lowered, name))


def _proxy_fields(value: object, name: str) -> tuple[str, ...]:
    fields: tuple[str, ...] = _several(_proxy_field, "header fields such as X-Forwarded-For")(
        value, name
    )
    if FORWARDED in fields and len(fields) > 1:
        raise ConfigError.of(name, value, "either Forwarded or X-Forwarded-*: which would be true?")
    return fields


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError.of(name, value, "true or false")
    return value


def _truth(text: str) -> object:
    """What the command line's text means for `_flag`; as TOML has it."""
    return {"true": True, "false": False}.get(text.lower(), text)


def _command(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ConfigError.of(name, value, "a list such as ['php', 'worker.php', '--id={id}']")
    return tuple(value)


def _command_line(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, str):
        raise ConfigError.of(name, value, "a command line")
    command = split_command(value, option=name)
    Template(command, option=name)
    return command


def _env(value: object, name: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ConfigError.of(name, value, "a table such as {RAILS_ENV = 'production'}")
    for variable, text in value.items():
        _variable(variable, name)
        if not isinstance(text, str) or "\0" in text:
            raise ConfigError.of(f"{name}.{variable}", text, "a text without NUL")
    return value


def _exits(value: object, name: str) -> dict[int, Outcome]:
    if not isinstance(value, dict):
        raise ConfigError.of(name, value, "a table such as {75 = 'transient'}")
    exits = {}
    for code, outcome in value.items():
        if re.fullmatch(r"0|[1-9][0-9]{0,2}", code, re.ASCII) is None or int(code) > 255:
            raise ConfigError.of(name, code, "an exit status from 0 to 255")
        exits[int(code)] = Outcome(_outcome(outcome, f"{name}.{code}"))
    return exits


def _weights(value: object, name: str) -> tuple[float, ...]:
    expected = "a list of weights from 0.001 to 1000, one for each queue"
    if not isinstance(value, list) or not value:
        raise ConfigError.of(name, value, expected)
    return tuple(float(_number(one, name, expected, 0.001, 1000)) for one in value)


_outcome: Final = _one_of(*(one.value for one in CONFIGURABLE))
_proxy_field_name: Final = _one_of(*X_FORWARDED, FORWARDED)
_role: Final = _several(_one_of(*ROLES), "roles: relay, pool, status")
_hosts: Final = _several(_host, "host names")
_queues: Final = _several(_queue, "queue names")
_variable: Final = _text(
    "the name of an environment variable, of letters, digits and '_'",
    re.compile(r"^[0-9]|[^A-Za-z0-9_]"),
)
_pool_name: Final = _text(
    "a name of 1 to 64 letters, digits, '.', '_' and '-'", re.compile(r"[^A-Za-z0-9._-]"), 64
)
_size: Final = _whole("slots", 1, 10_000)


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
    #: What it is where nobody says otherwise, in words; "" where the default is a plain value.
    otherwise: str = ""
    #: Whether it may be given more than once.
    repeatable: bool = False
    #: Whether its text has several values, with commas between them.
    separated: bool = False
    #: Whether it is a limit that the start log shows.
    limit: bool = False
    #: Its key in the file, where that is not its name.
    named: str = ""

    @property
    def key(self) -> str:
        """Its key in the file and its field in the record."""
        return self.named or self.name.replace("-", "_")

    @property
    def dotted(self) -> str:
        """Its full name in the file, as errors show it."""
        return f"{self.table}.{self.key}" if self.table else self.key

    @property
    def default(self) -> Any:
        """What it is where nobody says otherwise; None for "off"."""
        if self.table == "pool":
            return None
        config = Config()
        part = {"": config, "relay": config.relay, "status": config.status}[self.table]
        return getattr(part, self.key)

    def parse(self, given: object) -> object:
        """The value that the command line's text stands for; what cannot be one stays text, and
        `check` refuses it.
        """
        if self.repeatable:
            return given if isinstance(given, list) else [given]
        if self.separated:
            return given.split(",") if isinstance(given, str) else given
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
        words = self.otherwise or ("off" if default is None else str(default))
        particulars += [f"default: {words}"]
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
        name="role",
        table="",
        help="What this process does: relay, pool, status, with commas",
        check=_role,
        separated=True,
        otherwise="relay and status, and pool where one is configured",
    ),
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
        name="max-connections",
        help="How many clients may be connected at a time",
        type=int,
        check=_whole("connections", 1, 2**20),
        unit="connections",
        otherwise="what the open files allow",
        limit=True,
    ),
    Option(
        name="max-line",
        help="How long a request line or a header field may be",
        type=int,
        check=_whole("bytes", 256, _MiB),
        unit="bytes",
        limit=True,
    ),
    Option(
        name="max-header",
        help="How large request line and header section may be together",
        type=int,
        check=_whole("bytes", 256, 16 * _MiB),
        unit="bytes",
        limit=True,
    ),
    Option(
        name="max-fields",
        help="How many header fields a request may have",
        type=int,
        check=_whole("fields", 1, 10_000),
        unit="fields",
        limit=True,
    ),
    Option(
        name="header-time",
        help="How long a client may take for the header section, from its first byte",
        type=float,
        check=_seconds(1, 86400),
        unit="seconds",
        limit=True,
    ),
    Option(
        name="body-time",
        help="How long a body may come at less than 1 KiB a second",
        type=float,
        check=_seconds(1, 86400),
        unit="seconds",
        limit=True,
    ),
    Option(
        name="idle",
        help="How long a connection may be without a request",
        type=float,
        check=_seconds(1, 86400),
        unit="seconds",
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
    Option(
        name="frame-timeout",
        help="How long a streamed answer waits for its next part",
        type=float,
        check=_seconds(0.1, 86400),
        unit="seconds",
        limit=True,
    ),
    Option(
        name="send-stall",
        help="How long a client may take nothing of its answer",
        type=float,
        check=_seconds(0.1, 86400),
        unit="seconds",
        limit=True,
    ),
    Option(
        name="max-unsent",
        help="How far the client of a streamed answer may be behind",
        type=int,
        # Workers that wait for their clients are up to 768 KiB ahead of them.
        check=_whole("bytes", _MiB, 2**40),
        unit="bytes",
        limit=True,
    ),
    Option(name="access-log", help="File that gets a line for each request", check=_file),
    Option(
        name="error-pages",
        help="Directory with pages for errors: 502.html, 503.html, 504.html",
        check=_directory,
    ),
    Option(
        name="server-timing",
        help="Whether answers tell how long they waited and took, true or false",
        type=_truth,
        check=_flag,
        otherwise="true",
    ),
    Option(
        name="trusted-proxies",
        help="Networks of proxies that say who the client is, and unix for those on Unix sockets; "
        "with commas",
        check=_several(_network, "networks"),
        separated=True,
        otherwise="none",
    ),
    Option(
        name="proxy-fields",
        help="The header fields that these proxies set in every request: X-Forwarded-For, -Proto, "
        "-Host, -Port, or Forwarded; with commas",
        check=_proxy_fields,
        separated=True,
        otherwise="X-Forwarded-For, -Proto, -Host",
    ),
    Option(
        name="legacy-replies",
        help="Redis list on which old workers answer, such as responses",
        check=_list_name,
    ),
    Option(
        name="status",
        table="status",
        named="listen",
        help="Where status page and metrics are, a Twisted endpoint; off for nowhere",
        check=_status_endpoint,
        unit="endpoint",
    ),
    Option(
        name="status-credentials",
        table="status",
        named="credentials",
        help="File with the credentials that actions on the status page need",
        check=_file,
        otherwise="none, so that it only shows",
    ),
    Option(
        name="status-host",
        table="status",
        named="hosts",
        help="Name under which the status page may be asked, beside addresses and localhost",
        check=_hosts,
        repeatable=True,
        otherwise="none",
    ),
    # One pool, without a file.
    Option(
        name="worker",
        table="pool",
        help="Command line of a script that runs for each message, such as "
        "'./resize.php --id={id}', in a pool named default",
        check=_command_line,
    ),
    Option(
        name="workers",
        table="pool",
        help="How many of it may run at a time",
        type=int,
        check=_size,
        unit="slots",
        otherwise="1",
    ),
    Option(
        name="worker-queues",
        table="pool",
        help="The queues that it works on, first things first, with commas",
        check=_queues,
        separated=True,
        otherwise="that of --queue",
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

#: Keys of a ``[[pool]]``; those of its three options apart, they are in the file only.
_POOL: Final[Mapping[str, Check]] = {
    "name": _pool_name,
    "queues": _queues,
    "command": _command,
    "size": _size,
    "min": _size,
    "max": _size,
    "grow_after": _seconds(0, 86400),
    "shrink_after": _seconds(0, 86400),
    "timeout": _seconds(0.1, 30 * 86400),
    "tries": _whole("tries", 1, 100),
    "lease": _seconds(1, 3600),
    "grace": _seconds(0, 86400),
    "resident": _flag,
    "status": _one_of("exit", "stdout"),
    "client_gone": _one_of("finish", "kill"),
    "cwd": _directory,
    "env": _env,
    "pass_env": _several(_variable, "names of environment variables"),
    "weights": _weights,
    "rlimit_as": _whole("bytes", _MiB, 2**50),
    "rlimit_cpu": _whole("seconds", 1, 30 * 86400),
    # With fewer not even a shell starts.
    "rlimit_nofile": _whole("files", 8, 2**20),
    "exits": _exits,
    # As base64 it must stay below the 512 MiB that Redis takes for one value.
    "max_output": _whole("bytes", 1, 256 * _MiB),
    "recycle_after": _seconds(1, 365 * 86400),
    "recycle_memory": _whole("bytes", _MiB, 2**50),
    "script_name": _path,
    "script_filename": _file,
}
#: Keys that mean something only where the processes talk to Redis themselves, or only where we do.
_RESIDENT_ONLY: Final = ("recycle_after", "recycle_memory")
_SCRIPT_ONLY: Final = (
    *("min", "max", "grow_after", "shrink_after", "timeout", "tries", "lease", "status"),
    *("client_gone", "weights", "exits", "max_output", "script_name", "script_filename"),
)


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
    pools: tuple[PoolConfig, ...] = ()
    if path is not None:
        document = _read(path)
        top = [option for option in OPTIONS if not option.table]
        relay = [option for option in OPTIONS if option.table == "relay"]
        status = [option for option in OPTIONS if option.table == "status"]
        tables = ("relay", "pool", "status")
        _refuse_unknown(document, [*(option.key for option in top), *tables], "")
        table = _table(document.get("relay", {}), "relay")
        _refuse_unknown(table, [*(option.key for option in relay), "route"], "relay.")
        shown = _table(document.get("status", {}), "status")
        _refuse_unknown(shown, [option.key for option in status], "status.")
        for group, source in ((top, document), (relay, table), (status, shown)):
            for option in group:
                if option.key in source:
                    values[option.dotted] = option.check(source[option.key], option.dotted)
        routes = _routes(table.get("route", []))
        pools = _pools(document.get("pool", []))
    known = {option.name: option for option in OPTIONS}
    _refuse_unknown(options or {}, known, "--")
    for name, given in (options or {}).items():
        if given is not None and given != []:
            option = known[name]
            names[option.dotted] = f"--{name}"
            values[option.dotted] = option.check(option.parse(given), f"--{name}")
    found: dict[str, dict[str, Any]] = {"": {}, "relay": {}, "pool": {}, "status": {}}
    for option in OPTIONS:
        if option.dotted in values:
            found[option.table][option.key] = values[option.dotted]
    relayed = RelayConfig(**found["relay"], routes=routes)
    pools = _with_default_pool(pools, found["pool"], relayed.queue)
    status_config = StatusConfig(**found["status"])
    roles = {"relay": True, "pool": bool(pools), "status": status_config.listen is not None}
    found[""].setdefault("role", tuple(role for role in ROLES if roles[role]))
    config = Config(**found[""], relay=relayed, pools=pools, status=status_config)
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


def _pools(value: object) -> tuple[PoolConfig, ...]:
    """The pools of the file; errors number them from 1."""
    if not isinstance(value, list):
        raise ConfigError.of("pool", value, "tables: [[pool]]")
    pools: list[PoolConfig] = []
    for number, one in enumerate(value, 1):
        name = f"pool[{number}]"
        if not isinstance(one, dict):
            raise ConfigError.of(name, one, "a table: [[pool]]")
        _refuse_unknown(one, _POOL, f"{name}.")
        checked = {key: _POOL[key](given, f"{name}.{key}") for key, given in one.items()}
        pool = _pool(checked, name)
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
        raise refuse("command", "a list such as ['php', 'worker.php', '--id={id}']")
    Template(given["command"], option=f"{name}.command", fields=not resident)
    for key in _SCRIPT_ONLY if resident else _RESIDENT_ONLY:
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


# --- Showing -------------------------------------------------------------------------------------


def describe(config: Config) -> list[tuple[str, str]]:
    """The limits in force, ``(name, value with its unit)``, for the start log."""
    return [
        (option.name, option.otherwise if value is None else _with_unit(value, option.unit))
        for option in OPTIONS
        if option.limit
        for value in (getattr(config.relay, option.key),)
    ]


def _with_unit(value: float, unit: str) -> str:
    if unit == "bytes" and value % _KiB == 0:
        size, scaled = (value // _MiB, "MiB") if value % _MiB == 0 else (value // _KiB, "KiB")
        return f"{value} bytes ({size} {scaled})"
    return f"{value:g} {unit}" if isinstance(value, float) else f"{value} {unit}"
