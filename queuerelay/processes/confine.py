"""Commands in front of a command: another working directory, umask, user, and limits.

None is in posix_spawn(3). Each is one more exec, about 0.7 ms, and only where it is configured.
Limits are set before the program's first instruction, so what it starts has them too;
setting them from outside, with prlimit(2), could come after its first fork.
"""

import ctypes
import grp
import os
import pwd
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# prctl(2), linux/prctl.h.
_SET_DUMPABLE: Final = 4
_SET_NO_NEW_PRIVS: Final = 38
_GET_NO_NEW_PRIVS: Final = 39

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Whose rights a process has; None leaves ours."""

    #: Name or number of a user, whose groups it has, and of a group in the place of the user's own.
    user: str | None = None
    group: str | None = None
    #: Whether it, and what it starts, can get no rights by running a program (setuid, sudo).
    no_new_privs: bool = False


def prefix(
    executable: str,
    *,
    directory: str | None = None,
    limits: ProcessLimits | None = None,
    umask: int | None = None,
    rights: Rights | None = None,
) -> tuple[str, ...]:
    """What to put in front of an argv, found out once; empty where nothing is asked for.

    `executable` is the argv's first. Raises `ValueError`, fit to be shown, for a directory that
    is none and for limits that we may not give.
    """
    found: tuple[str, ...] = ()
    if limits is not None and limits != ProcessLimits():
        found += _limited(limits)
    if rights is not None:
        # After limits, which may need ours, and before the directory, which may be the user's.
        found += _entitled(rights)
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


def _entitled(rights: Rights) -> tuple[str, ...]:
    options = []
    if rights.user is not None or rights.group is not None:
        if os.geteuid() != 0:
            raise ValueError("user and group can only be given by a daemon that runs as root")
        group = _gid(rights.group) if rights.group is not None else None
        if rights.user is not None:
            found = entry_of(rights.user)
            options += [f"--reuid={found.pw_uid}", "--init-groups"]
            group = found.pw_gid if group is None else group
        else:
            options.append("--clear-groups")
        options.append(f"--regid={group}")
    if rights.no_new_privs and not _prctl(_GET_NO_NEW_PRIVS):
        options.append("--no-new-privs")
    return (_tool("setpriv"), *options, "--") if options else ()


def entry_of(user: str) -> pwd.struct_passwd:
    """A user's entry in the system's list, by name or number. Raises `ValueError`."""
    try:
        return pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError) as error:
        raise ValueError(f"there is no user {user}") from error


def _gid(group: str) -> int:
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise ValueError(f"there is no group {group}") from error


def forgo_privileges() -> None:
    """Take from ourselves for ever, and from all that we start, the rights that programs give
    (PR_SET_NO_NEW_PRIVS, prctl(2)). It costs a start nothing, where a command in front would.
    """
    _prctl(_SET_NO_NEW_PRIVS, 1)


def keep_secrets() -> None:
    """Let no other process of our user read our memory or environment, or trace us
    (PR_SET_DUMPABLE); there are no core dumps of us either. What we start is not concerned.
    """
    _prctl(_SET_DUMPABLE, 0)


def _prctl(option: int, value: int = 0) -> int:
    """What the system answers; -1 where it cannot."""
    try:
        return int(ctypes.CDLL(None).prctl(option, value, 0, 0, 0))
    except (OSError, AttributeError):
        return -1


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
