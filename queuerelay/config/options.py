"""The tables: every setting with its name, its check, and its words for people. Invariants:

1. A setting stands here once. The file, the command line, ``--help``, the start log and every
   error message come from here; units and defaults of the records are those of `shape`.
2. The start log keeps the order of `OPTIONS`: the top of the file, the relay's, the status
   listener's, and the pool that ``--worker`` makes. Twisted sorts ``--help`` by itself.
3. What has no option, as there may be many routes and pools, is in `tables`.
"""

from typing import Final

from queuerelay.config import values
from queuerelay.config.option import Option
from queuerelay.config.shape import MiB

OPTIONS: Final = (
    Option(
        name="redis",
        table="",
        help="localhost, HOST:PORT, redis://[USER:PASSWORD@]HOST:PORT/DB, rediss://..., "
        "several as redis://A,B/DB or sentinel://A,B/NAME/DB, "
        "unix:///PATH, or embedded[:DIR] for a Valkey server of our own that keeps its data "
        "in DIR",
        check=values.redis,
    ),
    Option(
        name="redis-file",
        table="",
        help="File with that URL as its one line: a password in it does not show in the list of "
        "processes. The variables QUEUERELAY_REDIS and QUEUERELAY_REDIS_FILE say the same, where "
        "neither options nor the file of --config do",
        check=values.file,
    ),
    Option(name="prefix", table="", help="Of our own keys in Redis", check=values.prefix),
    Option(
        name="reply-prefix",
        table="",
        help="Of the Redis lists that take replies to jobs: no other is written for one",
        check=values.prefix,
    ),
    Option(
        name="log-format",
        table="",
        help="How lines of the daemon's log and the access log look: text or json",
        check=values.one_of("text", "json"),
    ),
    Option(
        name="log-max-size",
        table="",
        help="How large the file of twistd's --logfile may become before it is renamed; 0 for no "
        "limit, where others rename it",
        type=int,
        check=values.whole("bytes", 0, 2**40),
        unit="bytes",
    ),
    Option(
        name="log-keep",
        table="",
        help="How many renamed files of it are kept",
        type=int,
        check=values.whole("files", 1, 1000),
        unit="files",
    ),
    Option(
        name="role",
        table="",
        help="What this process does: relay, pool, status, with commas",
        check=values.role,
        separated=True,
        otherwise="relay and status, and pool where one is configured",
    ),
    Option(
        name="listen",
        help="Where clients connect, a Twisted endpoint",
        check=values.endpoints,
        unit="endpoint",
        repeatable=True,
    ),
    Option(name="queue", help="Queue for requests that no route takes", check=values.queue),
    Option(
        name="deadline",
        help="How long a request may wait for its answer",
        type=float,
        check=values.deadline,
        unit="seconds",
        limit=True,
    ),
    Option(
        name="max-held",
        help="How many requests may wait at a time",
        type=int,
        check=values.whole("requests", 1, 10_000_000),
        unit="requests",
        limit=True,
    ),
    Option(
        name="max-held-bytes",
        help="How much memory waiting requests may take",
        type=int,
        check=values.whole("bytes", 1, 2**50),
        unit="bytes",
        limit=True,
    ),
    Option(
        name="client-share",
        help="Which part of all of that one client may have once there is no room; 1 for any",
        type=float,
        check=values.part,
        unit="part",
        limit=True,
    ),
    Option(
        name="max-body",
        help="How large the body of one request may be",
        type=int,
        # As base64 it must stay below the 512 MiB that Redis takes for one value.
        check=values.whole("bytes", 1, 256 * MiB),
        unit="bytes",
        limit=True,
    ),
    Option(
        name="max-reply",
        help="How large a worker's reply may be, in Redis",
        type=int,
        check=values.whole("bytes", 1024, 512 * MiB),
        unit="bytes",
        limit=True,
    ),
    Option(
        name="max-queue",
        help="How long one queue may become",
        type=int,
        check=values.whole("messages", 1, 2**40),
        unit="messages",
        limit=True,
    ),
    Option(
        name="max-connections",
        help="How many clients may be connected at a time",
        type=int,
        check=values.whole("connections", 1, 2**20),
        unit="connections",
        otherwise="what the open files allow",
        limit=True,
    ),
    Option(
        name="max-line",
        help="How long a request line or a header field may be",
        type=int,
        check=values.whole("bytes", 256, MiB),
        unit="bytes",
        limit=True,
    ),
    Option(
        name="max-header",
        help="How large request line and header section may be together",
        type=int,
        check=values.whole("bytes", 256, 16 * MiB),
        unit="bytes",
        limit=True,
    ),
    Option(
        name="max-fields",
        help="How many header fields a request may have",
        type=int,
        check=values.whole("fields", 1, 10_000),
        unit="fields",
        limit=True,
    ),
    Option(
        name="header-time",
        help="How long a client may take for the header section, from its first byte",
        type=float,
        check=values.seconds(1, 86400),
        unit="seconds",
        limit=True,
    ),
    Option(
        name="body-time",
        help="How long a body may come at less than 1 KiB a second",
        type=float,
        check=values.seconds(1, 86400),
        unit="seconds",
        limit=True,
    ),
    Option(
        name="idle",
        help="How long a connection may be without a request",
        type=float,
        check=values.seconds(1, 86400),
        unit="seconds",
        limit=True,
    ),
    Option(
        name="half-close",
        help="What becomes of a client that closes its side of the connection: wait, it gets its "
        "answer, or leave, its request is given up",
        check=values.one_of("wait", "leave"),
    ),
    Option(
        name="drain",
        help="How long a shutdown waits for answers",
        type=float,
        check=values.seconds(0, 86400),
        unit="seconds",
        limit=True,
    ),
    Option(
        name="frame-timeout",
        help="How long a streamed answer waits for its next part",
        type=float,
        check=values.seconds(0.1, 86400),
        unit="seconds",
        limit=True,
    ),
    Option(
        name="send-stall",
        help="How long a client may take nothing of its answer",
        type=float,
        check=values.seconds(0.1, 86400),
        unit="seconds",
        limit=True,
    ),
    Option(
        name="max-unsent",
        help="How far the client of a streamed answer may be behind",
        type=int,
        # Workers that wait for their clients are up to 768 KiB ahead of them.
        check=values.whole("bytes", MiB, 2**40),
        unit="bytes",
        limit=True,
    ),
    Option(name="access-log", help="File that gets a line for each request", check=values.file),
    Option(
        name="error-pages",
        help="Directory with pages for errors: 502.html, 503.html, 504.html",
        check=values.directory,
    ),
    Option(
        name="server-timing",
        help="Whether answers tell how long they waited and took, true or false",
        type=values.truth,
        check=values.flag,
        otherwise="true",
    ),
    Option(
        name="trusted-proxies",
        help="Networks of proxies that say who the client is, and unix for those on Unix sockets; "
        "with commas",
        check=values.several(values.network, "networks"),
        separated=True,
        otherwise="none",
    ),
    Option(
        name="proxy-fields",
        help="The header fields that these proxies set in every request: X-Forwarded-For, -Proto, "
        "-Host, -Port, or Forwarded, and any further ones that nobody else may write, such as "
        "X-Forwarded-User; with commas",
        check=values.proxy_fields,
        separated=True,
        otherwise="X-Forwarded-For, -Proto, -Host",
    ),
    Option(
        name="legacy-replies",
        help="Redis list on which old workers answer, such as responses",
        check=values.list_name,
    ),
    Option(
        name="status",
        table="status",
        named="listen",
        help="Where status page and metrics are, a Twisted endpoint; off for nowhere",
        check=values.status_endpoint,
        unit="endpoint",
    ),
    Option(
        name="status-credentials",
        table="status",
        named="credentials",
        help="File with the credentials that actions on the status page need",
        check=values.file,
        otherwise="none, so that it only shows",
    ),
    Option(
        name="status-readers",
        table="status",
        named="readers",
        help="Who may read the status page, JSON and metrics: anybody, or those with credentials",
        check=values.one_of("anybody", "credentials"),
    ),
    Option(
        name="status-host",
        table="status",
        named="hosts",
        help="Name under which the status page may be asked, beside addresses and localhost",
        check=values.hosts,
        repeatable=True,
        otherwise="none",
    ),
    Option(
        name="failed-max-count",
        table="failed",
        named="max_count",
        help="How many dead letters are kept; the oldest are dropped",
        type=int,
        check=values.whole("dead letters", 1, 10_000_000),
        unit="dead letters",
    ),
    Option(
        name="failed-max-bytes",
        table="failed",
        named="max_bytes",
        help="How much memory of Redis they may take",
        type=int,
        check=values.whole("bytes", MiB, 2**50),
        unit="bytes",
    ),
    Option(
        name="failed-max-age",
        table="failed",
        named="max_age",
        help="How long each of them is kept, in seconds or as 180d, 12h or 30m",
        check=values.age,
        otherwise="180d",
    ),
    Option(
        name="failed-max-body",
        table="failed",
        named="max_body",
        help="How much of the body of a request that failed is kept",
        type=int,
        check=values.whole("bytes", 0, 256 * MiB),
        unit="bytes",
    ),
    Option(
        name="failed-redact",
        table="failed",
        named="redact",
        help="Header fields of such a request whose values are left out, beside Authorization, "
        "Cookie and those whose names end with Token, Key, Secret, Password or Session; with "
        "commas",
        check=values.fields,
        separated=True,
        otherwise="none",
    ),
    # One pool, without a file.
    Option(
        name="worker",
        table="pool",
        help="Command line of a script that runs for each message, such as "
        "'./resize.php --id={id}', in a pool named default",
        check=values.command_line,
    ),
    Option(
        name="workers",
        table="pool",
        help="How many of it may run at a time",
        type=int,
        check=values.size,
        unit="slots",
        otherwise="1",
    ),
    Option(
        name="worker-queues",
        table="pool",
        help="The queues that it works on, first things first, with commas",
        check=values.queues,
        separated=True,
        otherwise="that of --queue",
    ),
)
