"""The keys of routes and pools, each with its check: they are in the file only."""

from collections.abc import Mapping
from typing import Final

from queuerelay.config import values
from queuerelay.config.shape import MiB
from queuerelay.config.values import Check

#: Keys of a ``[[relay.route]]``; they are in the file only.
ROUTE_KEYS: Final[Mapping[str, Check]] = {
    "queue": values.queue,
    "path": values.path,
    "method": values.method,
    "host": values.host,
    "header": values.header,
    "deadline": values.deadline,
}

#: Keys of a ``[[pool]]``; those of its three options apart, they are in the file only.
POOL_KEYS: Final[Mapping[str, Check]] = {
    "name": values.pool_name,
    "queues": values.queues,
    "command": values.command,
    "size": values.size,
    "min": values.size,
    "max": values.size,
    "grow_after": values.seconds(0, 86400),
    "shrink_after": values.seconds(0, 86400),
    "timeout": values.seconds(0.1, 30 * 86400),
    "tries": values.whole("tries", 1, 100),
    "start_patience": values.seconds(1, 365 * 86400),
    "start_tries": values.whole("tries", 1, 10**6),
    "lease": values.seconds(1, 3600),
    "grace": values.seconds(0, 86400),
    "resident": values.flag,
    "status": values.one_of("exit", "stdout"),
    "client_gone": values.one_of("finish", "kill"),
    "cwd": values.directory,
    "env": values.env,
    "pass_env": values.several(values.variable, "names of environment variables"),
    "weights": values.weights,
    "umask": values.umask,
    "user": values.account,
    "group": values.account,
    "no_new_privs": values.flag,
    "rlimit_as": values.whole("bytes", MiB, 2**50),
    "rlimit_cpu": values.whole("seconds", 1, 30 * 86400),
    # With fewer not even a shell starts.
    "rlimit_nofile": values.whole("files", 8, 2**20),
    "exits": values.exits,
    # As base64 it must stay below the 512 MiB that Redis takes for one value.
    "max_output": values.whole("bytes", 1, 256 * MiB),
    "recycle_after": values.seconds(1, 365 * 86400),
    "recycle_memory": values.whole("bytes", MiB, 2**50),
    "script_name": values.path,
    "script_filename": values.file,
}
#: Keys of resident pools alone, whose processes talk to Redis themselves; and of pools of scripts.
RESIDENT_ONLY: Final = ("recycle_after", "recycle_memory")
SCRIPT_ONLY: Final = (
    *("min", "max", "grow_after", "shrink_after", "timeout", "tries", "lease", "status"),
    *(
        "start_patience",
        "start_tries",
        "client_gone",
        "weights",
        "exits",
        "max_output",
        "script_name",
        "script_filename",
    ),
)
