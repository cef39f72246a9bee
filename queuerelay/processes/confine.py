"""Commands in front of a command: another working directory, umask, and limits.

None is in posix_spawn(3). Each is one more exec, about 0.7 ms, and only where it is configured.
Limits are set before the program's first instruction, so what it starts has them too;
setting them from outside, with prlimit(2), could come after its first fork.
"""

import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Seconds between SIGXCPU at the limit and SIGKILL.
CPU_GRACE: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """Upper bounds for one process each; None leaves ours."""

    #: Bytes of address space (RLIMIT_AS).
    address_space: int | None = None
    #: Seconds of processor time (RLIMIT_CPU).
    cpu: int | None = None
    #: Open descriptors (RLIMIT_NOFILE).
    files: int | None = None


def prefix(
    executable: str,
    *,
    directory: str | None = None,
    limits: ProcessLimits | None = None,
    umask: int | None = None,
) -> tuple[str, ...]:
    """What to put in front of an argv, found out once; empty where nothing is asked for.

    `executable` is the argv's first. Raises `ValueError`, fit to be shown, for a directory that
    is none and for limits that we may not give.
    """
    found: tuple[str, ...] = ()
    if limits is not None and limits != ProcessLimits():
        found += _limited(limits)
    if directory is not None:
        found += _within(executable, directory)
    if umask is not None:
        # Last: what is before it, as env, makes no files.
        found += (_tool("sh"), "-c", 'umask "$0" && exec "$@"', f"{umask:04o}")
    return found


def _within(executable: str, directory: str) -> tuple[str, ...]:
    path = Path(directory).absolute()
    if not path.is_dir():
        raise ValueError(f"{directory!r} is not a directory")
    env = shutil.which("env")
    # env takes a command with a "=" for a variable, and not every one knows -C.
    if env is not None and "=" not in executable and _runs(env, "-C", str(path), "true"):
        return (env, "-C", str(path))
    # Nothing of the argv becomes part of the script. 126: cannot be run.
    return (_tool("sh"), "-c", 'cd -- "$0" || exit 126; exec "$@"', str(path))


def _limited(limits: ProcessLimits) -> tuple[str, ...]:
    options = []
    if limits.address_space is not None:
        bound = _bound(resource.RLIMIT_AS, limits.address_space)
        options.append(f"--as={bound}:{bound}")
    if limits.cpu is not None:
        bound = _bound(resource.RLIMIT_CPU, limits.cpu)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        last = bound + CPU_GRACE
        options.append(f"--cpu={bound}:{last if hard < 0 else min(last, hard)}")
    if limits.files is not None:
        bound = _bound(resource.RLIMIT_NOFILE, limits.files)
        options.append(f"--nofile={bound}:{bound}")
    return (_tool("prlimit"), *options, "--")


def _bound(kind: int, value: int) -> int:
    hard = resource.getrlimit(kind)[1]
    if value < 1 or (hard != resource.RLIM_INFINITY and value > hard):
        allowed = "1 or more" if hard == resource.RLIM_INFINITY else f"1 to {hard}"
        raise ValueError(f"a limit of {value} cannot be given here, only {allowed}")
    return value


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ValueError(f"the command {name} is needed for it, and is not on PATH")
    return found


def _runs(*command: str) -> bool:
    quiet = subprocess.DEVNULL
    try:
        return not subprocess.run(
            command, stdin=quiet, stdout=quiet, stderr=quiet, check=False, timeout=10
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False
