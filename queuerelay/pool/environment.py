"""The environments of scripts: what they have of the daemon's, and what is about their message."""

import os
from collections.abc import Mapping, Sequence
from typing import Final

from queuerelay.config.command import encode_text
from queuerelay.redis_source import FILE_VARIABLE, VARIABLE

#: Variables that every script gets, where the daemon has them; ``LC_*`` too.
INHERITED: Final = ("PATH", "HOME", "LANG", "TZ")
#: PATH where the daemon has none.
DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


def base_environment(
    inherited: Mapping[bytes, bytes], *, env: Mapping[str, str], pass_env: Sequence[str]
) -> dict[bytes, bytes]:
    """What every script of a pool gets: of the daemon's own variables `INHERITED`, ``LC_*`` and
    those that `pass_env` names, and `env` over them. No password of the daemon's is among them
    unless asked for.
    """
    wanted = {os.fsencode(name) for name in (*INHERITED, *pass_env)}
    environment = {
        name: value
        for name, value in inherited.items()
        if name in wanted or name.startswith(b"LC_")
    }
    environment.setdefault(b"PATH", DEFAULT_PATH.encode())
    environment.update((os.fsencode(name), os.fsencode(value)) for name, value in env.items())
    return environment


def resident_environment(base: Mapping[bytes, bytes], address: str | None) -> dict[bytes, bytes]:
    """What a resident process gets: `base`, and where Redis is, unless that says it already. Not on
    its command line, which everybody on the machine can read.
    """
    variable = os.fsencode(VARIABLE)
    if address is None or variable in base or os.fsencode(FILE_VARIABLE) in base:
        return dict(base)
    return {**base, variable: os.fsencode(address)}


def message_environment(
    *, message_id: str, queue: str, attempt: int, deadline: float | None
) -> dict[bytes, bytes]:
    """What a script gets about its message: ``QUEUERELAY_ID``, ``QUEUERELAY_QUEUE``,
    ``QUEUERELAY_ATTEMPT`` (from 1), ``QUEUERELAY_DEADLINE`` (Unix seconds, left out for None).

    An id is other people's text: what no environment can carry is taken out of it.
    """
    environment = {
        b"QUEUERELAY_ID": encode_text(message_id.replace("\0", "")[:1024]),
        b"QUEUERELAY_QUEUE": encode_text(queue),
        b"QUEUERELAY_ATTEMPT": b"%d" % attempt,
    }
    if deadline is not None and deadline != float("inf"):
        environment[b"QUEUERELAY_DEADLINE"] = b"%.3f" % deadline
    return environment
