"""The shape of the configuration: frozen records, one field for each setting. Invariants:

1. The unit of a field and its default stand here; ``Config()`` is what `load` gives where nobody
   says anything.
2. A field has the name of its key in the file, `routes` and `pools` apart. `options` says what its
   option is called, where it has one.
3. Nothing is checked here: what `load` gives was, a record made by hand, as in tests, was not.

`Config` has all the others in it: `RelayConfig` with a `Route` for each ``[[relay.route]]``, a
`PoolConfig` for each ``[[pool]]`` and ``--worker``, `StatusConfig`, and `Kept` of dead letters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from queuerelay.wire.failure import KEPT, Kept
from queuerelay.wire.outcome import Outcome
from queuerelay.wire.proxies import X_FORWARDED

KiB: Final = 1024
MiB: Final = 1024 * KiB

#: Roles of a process, which may have several at once.
ROLES: Final = ("relay", "pool", "status")
#: The value that stands for no listener.
OFF: Final = "off"
#: Name of the pool that ``--worker`` makes.
DEFAULT_POOL: Final = "default"
#: Messages on one queue: for a relay by default, and for the jobs that an action submits.
MOST_QUEUED: Final = 50_000


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
    #: Deadline in seconds, or None for the relay's.
    deadline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayConfig:
    """The settings of the relay."""

    #: Twisted endpoint strings.
    listen: tuple[str, ...] = ("tcp:8000",)
    #: Queue for requests that no route takes.
    queue: str = "requests"
    #: Seconds that a request may wait.
    deadline: float = 60.0
    #: Requests held at a time.
    max_held: int = 10_000
    #: Bytes held at a time, messages as they go to the queue.
    max_held_bytes: int = 256 * MiB
    #: Part of the requests, bytes and connections that one client may have where others find none.
    client_share: float = 0.1
    #: Bytes of one request's body.
    max_body: int = 16 * MiB
    #: Bytes of one reply, as it comes from its worker.
    max_reply: int = 96 * MiB
    #: Messages on one queue.
    max_queue: int = MOST_QUEUED
    #: Clients connected at a time, None for what the open files allow.
    max_connections: int | None = None
    #: Bytes of a request line or a header field.
    max_line: int = 8 * KiB
    #: Bytes of request line and header section.
    max_header: int = 32 * KiB
    #: Header fields of one request.
    max_fields: int = 100
    #: Seconds from the first byte of a request to the end of its header section.
    header_time: float = 10.0
    #: Seconds in which a body must get on.
    body_time: float = 30.0
    #: Seconds between two requests of a connection.
    idle: float = 60.0
    #: What becomes of a client that closes its side of the connection: "wait" or "leave".
    half_close: str = "wait"
    #: Seconds that held requests get at shutdown.
    drain: float = 25.0
    #: Seconds between two frames of a streamed reply.
    frame_timeout: float = 60.0
    #: Seconds for which a client may take nothing of its answer.
    send_stall: float = 60.0
    #: Bytes by which the client of a streamed answer may be behind.
    max_unsent: int = MiB
    #: File of the access log, or None for none.
    access_log: str | None = None
    #: Directory with pages for errors, or None for none.
    error_pages: str | None = None
    #: Whether answers tell how long they took.
    server_timing: bool = True
    #: Networks of proxies that say who the client is, and ``unix`` for Unix sockets.
    trusted_proxies: tuple[str, ...] = ()
    #: Header fields in which trusted proxies say who the client is, lower-case.
    proxy_fields: tuple[str, ...] = X_FORWARDED[:3]
    #: Redis list that old workers answer on, or None for none.
    legacy_replies: str | None = None
    #: Routes; the first one that matches decides.
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """One pool: scripts that run for each message, or resident processes."""

    #: Name, unique among the pools; letters, digits, ``.``, ``_`` and ``-``.
    name: str
    #: Queues in the order of priority; may be empty for a resident pool.
    queues: tuple[str, ...]
    #: argv, with ``{field}`` for a scalar of the message; see `queuerelay.config.command`.
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
    #: Seconds after which a message fails whose script cannot be started.
    start_patience: float = 3600.0
    #: Starts that come to nothing after which it does; None for any number in that time.
    start_tries: int | None = None
    #: Seconds for which a claim on a message holds without being renewed. The pool renews it each
    #: third of that; where its process is dead, others take the message over only so much later.
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
    #: Names of the daemon's variables that the scripts get too.
    pass_env: tuple[str, ...] = ()
    #: One weight for each queue, so that none starves; empty for strict order.
    weights: tuple[float, ...] = ()
    #: File mode creation mask of the scripts, None for the one that the daemon was started with.
    umask: int | None = None
    #: User and group that scripts run as, names or numbers; None for the daemon's.
    user: str | None = None
    group: str | None = None
    #: Whether scripts can get no rights by running a program (setuid, sudo); None for what is so in
    #: the process: the daemon gives up such rights, another application may not.
    no_new_privs: bool | None = None
    #: Bytes of address space of one process, None for no limit of ours.
    rlimit_as: int | None = None
    #: Seconds of processor time of one process.
    rlimit_cpu: int | None = None
    #: Open files of one process.
    rlimit_nofile: int | None = None
    #: Exit status to outcome, before the defaults.
    exits: Mapping[int, Outcome] = field(default_factory=dict)
    #: Bytes that a script may print.
    max_output: int = 64 * MiB
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
    """The settings of the status listener."""

    #: A Twisted endpoint string, None for no listener.
    listen: str | None = "tcp:8080:interface=127.0.0.1"
    #: File with the credentials that actions need; without one there are no actions.
    credentials: str | None = None
    #: Who may read: ``anybody``, or those with ``credentials`` for it.
    readers: str = "anybody"
    #: Names, without port, under which the listener may be asked beside addresses and localhost.
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration of a process."""

    #: URL of Redis; see `queuerelay.wire.url.parse`. May contain a password.
    redis: str = field(default="redis://localhost:6379/0", repr=False)
    #: File that the URL was read from, None for none.
    redis_file: str | None = None
    #: Prefix of our own keys in Redis.
    prefix: str = "queuerelay:"
    #: Of the lists that take replies to jobs.
    reply_prefix: str = "queuerelay:results:"
    #: How lines of both logs look: ``text`` or ``json``.
    log_format: str = "text"
    #: Bytes after which the daemon's log goes on in a new file, 0 for never.
    log_max_size: int = 10 * MiB
    #: Old files of the daemon's log that are kept.
    log_keep: int = 10
    #: Which of `ROLES` this process has.
    role: tuple[str, ...] = ("relay", "status")
    relay: RelayConfig = field(default_factory=RelayConfig)
    #: Pools in the order of the file, that of ``--worker`` last.
    pools: tuple[PoolConfig, ...] = ()
    status: StatusConfig = field(default_factory=StatusConfig)
    #: What is kept of dead letters.
    failed: Kept = KEPT
