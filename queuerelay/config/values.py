"""What a value may be: the checks, and what makes them. Invariants:

1. A check takes the value and the name to show for it, and gives the value to keep or raises
   `ConfigError`, one line.
2. A check sees the value as TOML has it; whatever type came, it refuses what it does not know.
   Where a file has a list, the command line's text was split before.
3. A check looks at one value alone. What must fit together is checked in `reading`; whether an
   endpoint can be listened on, a file be read, or a program be run, where that is done.

`seconds`, `whole`, `one_of` and `several` make checks; the others are checks, but for `truth`.
"""

import difflib
import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any, Final

from queuerelay.config.command import Template, split_command
from queuerelay.config.shape import OFF, ROLES
from queuerelay.errors import ConfigError
from queuerelay.wire import url
from queuerelay.wire.headers import is_further, is_token
from queuerelay.wire.names import QUEUE_NAME, QUEUE_NAME_EXPECTED
from queuerelay.wire.outcome import CONFIGURABLE, Outcome
from queuerelay.wire.proxies import FORWARDED, UNIX, X_FORWARDED

#: A check: takes a value and its name, gives the value to keep.
Check = Callable[[object, str], Any]

#: Blanks, controls, and halves of characters: bytes of the command line that are not UTF-8.
_UNPRINTABLE: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")
#: What the command of a pool is expected to be.
COMMAND: Final = "a list such as ['php', 'worker.php', '--id={id}']"


def _text(expected: str, bad: re.Pattern[str] = _UNPRINTABLE, longest: int = 128) -> Check:
    def check(value: object, name: str) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= longest or bad.search(value):
            raise ConfigError.of(name, value, expected)
        return value

    return check


def _matching(pattern: str, expected: str) -> Check:
    def check(value: object, name: str) -> str:
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
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


def seconds(lowest: float, highest: float) -> Check:
    """A number in this range, kept as float."""
    expected = f"seconds from {lowest:g} to {highest:g}"

    def check(value: object, name: str) -> float:
        return float(_number(value, name, expected, lowest, highest))

    return check


def part(value: object, name: str) -> float:
    """A part of a whole."""
    return float(_number(value, name, "a part from 0.001 to 1", 0.001, 1))


def whole(unit: str, lowest: int, highest: int) -> Check:
    """A whole number of `unit` in this range."""
    expected = f"a whole number of {unit} from {lowest} to {highest}"

    def check(value: object, name: str) -> int:
        number = _number(value, name, expected, lowest, highest)
        if not isinstance(number, int):
            raise ConfigError.of(name, value, expected)
        return number

    return check


def age(value: object, name: str) -> float:
    """Seconds, as a number or as a text with a unit, such as ``180d``; a minute at least."""
    expected = "seconds from 60 to 3155760000, or a text such as 180d, 12h or 30m"
    number = value
    if isinstance(value, str):
        found = re.fullmatch(r"([0-9]{1,10}(?:\.[0-9]{1,3})?)([smhd]?)", value)
        if found is None:
            raise ConfigError.of(name, value, expected)
        number = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]
    if (
        isinstance(number, bool)
        or not isinstance(number, int | float)
        or not (60 <= number <= 3_155_760_000)
    ):
        raise ConfigError.of(name, value, expected)
    return float(number)


def fields(value: object, name: str) -> tuple[str, ...]:
    """Names of header fields, kept in lower case."""
    expected = "names of header fields"
    if not isinstance(value, list):
        raise ConfigError.of(name, value, f"a list of {expected}")
    for one in value:
        if not isinstance(one, str) or not is_token(one):
            raise ConfigError.of(name, one, expected)
    return tuple(one.lower() for one in value)


def redis(value: object, name: str) -> str:
    """A URL that `queuerelay.wire.url.parse` takes, kept as it is."""
    if not isinstance(value, str):
        raise ConfigError.of(name, value, "the address of a Redis server")
    url.parse(value, option=name)
    return value


def endpoints(value: object, name: str) -> tuple[str, ...]:
    """Texts, at least one; Twisted parses them later."""
    expected = "endpoints such as 'tcp:8000' or 'unix:/run/queuerelay.sock'"
    if not isinstance(value, list) or not value:
        raise ConfigError.of(name, value, f"a list of {expected}")
    for one in value:
        if not isinstance(one, str) or not one.strip():
            raise ConfigError.of(name, one, expected)
    return tuple(value)


def status_endpoint(value: object, name: str) -> str | None:
    """A text; None for `OFF`."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError.of(name, value, "an endpoint such as 'tcp:8080', or 'off'")
    return None if value == OFF else value


queue: Final = _matching(QUEUE_NAME, f"a queue name of {QUEUE_NAME_EXPECTED}")
prefix: Final = _text("1 to 128 characters without blanks, such as 'queuerelay:'")
list_name: Final = _text("the name of a Redis list, such as 'responses'")
file: Final = _text("the path of a file", _CONTROLS, 4096)
directory: Final = _text("the path of a directory", _CONTROLS, 4096)
deadline: Final = seconds(0.001, 86400)

path: Final = _text(
    "the beginning of a path, such as '/checkout/'", re.compile(r"^[^/]|[\s?#\x00-\x1f\x7f]"), 2048
)
host: Final = _text(
    "a host name or address without port",
    re.compile(r"[\s/@,\x00-\x1f\x7f]|^[^\[:]+:[^:]*$|\]:"),
    253,
)


def method(value: object, name: str) -> str:
    """A method of HTTP."""
    # Methods are case-sensitive (RFC 9110 9.1), and all that are registered are upper-case.
    if not isinstance(value, str) or not is_token(value) or value != value.upper():
        raise ConfigError.of(name, value, "a method such as 'POST'")
    return value


def header(value: object, name: str) -> str:
    """A header field's name, with or without a value."""
    if isinstance(value, str):
        field, colon, text = value.partition(":")
        text = text.strip(" \t")
        if is_token(field) and bool(colon) == bool(text) and text.isprintable():
            return value
    raise ConfigError.of(name, value, "a header as 'Name' or 'Name: value'")


def one_of(*known: str) -> Check:
    """One of these texts; the error says which may have been meant."""
    expected = " or ".join(repr(one) for one in known)

    def check(value: object, name: str) -> str:
        if not isinstance(value, str) or value not in known:
            near = difflib.get_close_matches(value, known, 1) if isinstance(value, str) else []
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError.of(name, value, expected + hint)
        return value

    return check


def several(check: Check, expected: str) -> Check:
    """A list of different values, at least one."""

    def check_all(value: object, name: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise ConfigError.of(name, value, f"a list of {expected}")
        checked = tuple(check(one, name) for one in value)
        if len(set(checked)) < len(checked):
            raise ConfigError.of(name, value, f"a list of {expected}, each once")
        return checked

    return check_all


def network(value: object, name: str) -> str:
    """A network or address of proxies, or `UNIX`."""
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
    lowered = value.lower() if isinstance(value, str) else ""
    if lowered in (FORWARDED, *X_FORWARDED):
        return lowered
    # Any other name may be meant, but hardly one that is a slip of the pen away.
    tails = {known.rpartition("-")[2]: known for known in X_FORWARDED}
    tail = lowered.removeprefix("x-forwarded-")
    near = difflib.get_close_matches(tail, tails, 1, cutoff=0.65) if tail != lowered else []
    if near and abs(len(near[0]) - len(tail)) <= 1:
        raise ConfigError.of(name, value, f"a field; did you mean {tails[near[0]]!r}?")
    if not is_further(lowered):
        expected = "the name of a field that proxies may set, such as 'X-Forwarded-For'"
        raise ConfigError.of(name, value, expected)
    return lowered


def proxy_fields(value: object, name: str) -> tuple[str, ...]:
    """Header fields that proxies set, kept in lower case; with the default ones where only further
    ones are named.
    """
    fields: tuple[str, ...] = several(_proxy_field, "header fields such as X-Forwarded-For")(
        value, name
    )
    saying = [field for field in fields if field in (FORWARDED, *X_FORWARDED)]
    if FORWARDED in saying and len(saying) > 1:
        raise ConfigError.of(name, value, "either Forwarded or X-Forwarded-*: which would be true?")
    # Who names further ones alone does not mean that no proxy says who the client is.
    return fields if saying else (*X_FORWARDED[:3], *fields)


def flag(value: object, name: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ConfigError.of(name, value, "true or false")
    return value


def truth(text: str) -> object:
    """The command line's text for a `flag`, as TOML has it."""
    return {"true": True, "false": False}.get(text.lower(), text)


def command(value: object, name: str) -> tuple[str, ...]:
    """An argv. Its placeholders are for `reading` to check: a resident pool has none."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ConfigError.of(name, value, COMMAND)
    return tuple(value)


def command_line(value: object, name: str) -> tuple[str, ...]:
    """A command line of a script, kept as argv."""
    if not isinstance(value, str):
        raise ConfigError.of(name, value, "a command line")
    argv = split_command(value, option=name)
    Template(argv, option=name)
    return argv


def env(value: object, name: str) -> dict[str, str]:
    """A table from variables to texts."""
    if not isinstance(value, dict):
        raise ConfigError.of(name, value, "a table such as {RAILS_ENV = 'production'}")
    for key, text in value.items():
        variable(key, name)
        if not isinstance(text, str) or "\0" in text:
            raise ConfigError.of(f"{name}.{key}", text, "a text without NUL")
    return value


def exits(value: object, name: str) -> dict[int, Outcome]:
    """A table from exit statuses, which are texts in TOML, to outcomes."""
    if not isinstance(value, dict):
        raise ConfigError.of(name, value, "a table such as {75 = 'transient'}")
    found = {}
    for code, outcome in value.items():
        if re.fullmatch(r"0|[1-9][0-9]{0,2}", code, re.ASCII) is None or int(code) > 255:
            raise ConfigError.of(name, code, "an exit status from 0 to 255")
        found[int(code)] = Outcome(_outcome(outcome, f"{name}.{code}"))
    return found


#: A user or a group (useradd(8)), or its number.
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?")


def account(value: object, name: str) -> str:
    """The name or the number of a user or a group; whether there is one shows at the start."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32 - 1:
        return str(value)
    if isinstance(value, str) and _ACCOUNT.fullmatch(value):
        return value
    raise ConfigError.of(name, value, "the name or the number of a user or a group")


def umask(value: object, name: str) -> int:
    """An octal text; a number of TOML would be decimal, and not what was meant."""
    if not isinstance(value, str) or re.fullmatch(r"0?[0-7]{3}", value, re.ASCII) is None:
        raise ConfigError.of(name, value, "an octal text such as '0027'")
    return int(value, 8)


def weights(value: object, name: str) -> tuple[float, ...]:
    """Positive numbers, at least one, kept as float."""
    expected = "a list of weights from 0.001 to 1000, one for each queue"
    if not isinstance(value, list) or not value:
        raise ConfigError.of(name, value, expected)
    return tuple(float(_number(one, name, expected, 0.001, 1000)) for one in value)


_outcome: Final = one_of(*(one.value for one in CONFIGURABLE))
role: Final = several(one_of(*ROLES), "roles: relay, pool, status")
hosts: Final = several(host, "host names")
queues: Final = several(queue, "queue names")
variable: Final = _text(
    "the name of an environment variable, of letters, digits and '_'",
    re.compile(r"^[0-9]|[^A-Za-z0-9_]"),
)
pool_name: Final = _text(
    "a name of 1 to 64 letters, digits, '.', '_' and '-'", re.compile(r"[^A-Za-z0-9._-]"), 64
)
size: Final = whole("slots", 1, 10_000)
