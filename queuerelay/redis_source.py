"""Where the address of Redis is said: by an option, in a file, or in the environment.

On a command line its password would show in the list of processes, so every program takes it from
`VARIABLE` and from a file as well. Whoever says it nearest wins: the command line, then the
configuration file, then the environment.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from queuerelay.errors import ConfigError

#: The variable that has the address, and the one that names a file with it.
VARIABLE: Final = "QUEUERELAY_REDIS"
FILE_VARIABLE: Final = "QUEUERELAY_REDIS_FILE"
#: Most bytes of such a file.
_LARGEST: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One place that may say it: by itself, or by the name of a file."""

    #: Names of the two, for errors.
    name: str
    file_name: str
    #: What they say; None or "" for nothing.
    address: str | None
    file: str | None


def of_environment(environment: Mapping[str, str]) -> Source:
    """What the variables say."""
    return Source(
        name=VARIABLE,
        file_name=FILE_VARIABLE,
        address=environment.get(VARIABLE),
        file=environment.get(FILE_VARIABLE),
    )


def first(sources: Iterable[Source]) -> tuple[str, str] | None:
    """The address that the first of them says, and what to call the place in errors; None where
    nobody says anything. Raises `ConfigError`.
    """
    for one in sources:
        if one.address and one.file:
            raise ConfigError.of(one.file_name, one.file, f"either it or {one.name}")
        if one.address:
            return one.address, one.name
        if one.file:
            return _line(one.file, one.file_name), f"{one.file_name} {one.file}"
    return None


def _line(path: str, name: str) -> str:
    """The one line of the file."""
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
        lines = content.decode("utf-8").split()
    except UnicodeDecodeError:
        raise ConfigError.of(name, path, "a file of UTF-8") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError.of(name, path, f"a file that can be read ({reason})") from error
    if len(lines) != 1 or len(content) > _LARGEST:
        raise ConfigError.of(name, path, "a file with one line, the address of a Redis server")
    return lines[0]
