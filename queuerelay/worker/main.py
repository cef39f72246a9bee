"""``queuerelay-worker``: options, the user's application, and a worker put together from parts."""

import argparse
import importlib
import importlib.util
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn
from wsgiref.types import WSGIApplication

from queuerelay import __version__
from queuerelay.errors import ConfigError
from queuerelay.redact import redact
from queuerelay.redis_source import Source, first, of_environment
from queuerelay.safe_text import safe_line, safe_lines
from queuerelay.wire.destination import overlap
from queuerelay.wire.failure import Kept
from queuerelay.wire.headers import is_token
from queuerelay.wire.keys import Keys
from queuerelay.wire.url import RedisUrl, parse
from queuerelay.worker.in_hand import InHand
from queuerelay.worker.settings import MAX_REPLY, WorkerSettings
from queuerelay.worker.supervisor import Orders, Supervisor

log = logging.getLogger(__name__)

_MIB: Final = 1024 * 1024
#: Seconds that the main connection waits for an answer; a large reply must get through in it.
ANSWER_TIMEOUT: Final = 10.0
#: The value of ``--timeout`` for "as long as the client waits".
_DEADLINE: Final = "deadline"
_LEVELS: Final = ("debug", "info", "warning", "error")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker as `arguments` (default: the command line's) say. Gives the exit status.

    0 after SIGTERM, SIGINT or the limit of requests; 1 for wrong options or an application that
    cannot be imported, with one line on stderr that says what was given and expected.
    """
    try:
        options = _parser().parse_args(arguments)
        _log_to_stderr(options.log_level)
        if importlib.util.find_spec("redis") is None:
            raise ConfigError("redis-py is not installed: pip install 'queuerelay[worker]'")
        url = _redis(options)
        where = _address(url)
        keys = _keys(options.prefix, options.reply_prefix)
        if options.chdir is not None:
            _chdir(options.chdir)
    except ConfigError as error:
        return _refused(error)
    settings = WorkerSettings(
        keys=keys,
        queues=options.queues,
        lease=options.lease,
        # That of the parent, which others know.
        holder=f"{socket.gethostname()}:{os.getpid()}",
        max_reply=options.max_reply,
        requests=options.requests,
        timeout=options.timeout,
        kept=Kept(redact=options.failed_redact or ()),
    )
    process = _Process(options, settings, where)
    if options.timeout == 0:
        return process.run(InHand(), None)
    return Supervisor(process.run, process.end_message).serve()


def _refused(error: ConfigError) -> int:
    sys.stderr.write(f"queuerelay-worker: {safe_line(redact(str(error)))}\n")
    return 1


def _redis(options: argparse.Namespace) -> RedisUrl:
    said = None if isinstance(options.redis, _Unsaid) else options.redis
    given = Source(name="--redis", file_name="--redis-file", address=said, file=options.redis_file)
    address, name = first([given, of_environment(os.environ)]) or (options.redis, "--redis")
    return parse(address, option=name)


def load_application(named: str) -> WSGIApplication:
    """The callable that ``module:attribute`` names; the current directory is searched first.

    Raises `ConfigError`. Where the module itself raises, its traceback goes to the log before.
    """
    option = "application"
    module_name, colon, attributes = named.partition(":")
    if not (colon and module_name and attributes):
        raise ConfigError.of(option, named, "MODULE:ATTRIBUTE, such as app:application")
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if _is_missing(error, module_name):
            raise ConfigError.of(
                option, named, f"a module that can be imported from {directory} ({error})"
            ) from error
        log.exception("%s cannot be imported", module_name)
        raise ConfigError.of(
            option, named, f"a module without errors (it raised {type(error).__name__})"
        ) from error
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError as error:
            raise ConfigError.of(option, named, f"an attribute that exists ({error})") from error
    if not callable(found):
        raise ConfigError.of(option, named, f"a WSGI callable, not a {type(found).__name__}")
    application: WSGIApplication = found
    return application


def _is_missing(error: BaseException, module_name: str) -> bool:
    """Whether it is the module itself that is not there, not one that it imports."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return isinstance(error, ValueError | TypeError) and module_name.startswith(".")
    return module_name == error.name or module_name.startswith(f"{error.name}.")


def _fields(text: str) -> tuple[str, ...]:
    """Names of header fields, with commas between them."""
    names = tuple(name.strip().lower() for name in text.split(","))
    if not all(map(is_token, names)):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected names of header fields")
    return names


class _Process:
    """What a worker process does, and what is done about one that hung."""

    def __init__(
        self, options: argparse.Namespace, settings: WorkerSettings, where: RedisUrl
    ) -> None:
        """`where` is Redis."""
        self._options = options
        self._settings = settings
        self._where = where

    def run(self, in_hand: InHand, orders: Orders | None) -> int:
        """Import the application, and serve; gives the exit status."""
        options, settings = self._options, self._settings
        try:
            application = load_application(options.application)
        except ConfigError as error:
            return _refused(error)
        # Again: the application may have set up logging, and that may have silenced us.
        _log_to_stderr(options.log_level)
        # Here, so that what is wrong is said in one line where redis-py is missing, and the parent
        # is small.
        from queuerelay.worker.doorbell import PEEK_TIMEOUT, Doorbell
        from queuerelay.worker.lease import LeaseKeeper
        from queuerelay.worker.link import Link, Outage
        from queuerelay.worker.loop import WorkerLoop
        from queuerelay.worker.master import MasterFinder

        outage, master = Outage(), MasterFinder(self._where, keys=settings.keys)
        lease = settings.lease
        log.info(
            "worker %s %s: queues %s at %s, lease %g s, %s",
            __version__,
            settings.holder,
            ",".join(settings.queues),
            self._where.redacted,
            lease,
            options.application,
        )
        # A renewal must fail early enough for another one within the lease.
        lease_link = Link(master, role="lease", outage=outage, timeout=max(1.0, lease / 3))
        tokens = secrets.token_hex(8)
        keeper = LeaseKeeper(settings, lease_link, tokens=tokens, clock=time.monotonic)
        doorbell = Doorbell()
        main_link = Link(master, role="main", outage=outage, timeout=ANSWER_TIMEOUT)
        loop = WorkerLoop(application, settings, main_link, keeper, doorbell, in_hand=in_hand)
        loop.obey_signals()
        if orders is not None:
            orders.heard_by(loop.stop)
        master.watch()
        keeper.start()
        for queue in settings.queues:
            link = Link(master, role="peek", outage=outage, timeout=PEEK_TIMEOUT)
            doorbell.watch(queue, settings.keys, link)
        loop.run()
        keeper.stop()
        return 0

    def end_message(self, queue: str, token: str) -> None:
        """End the message that a killed process had in hand."""
        from queuerelay.worker.link import Link, Outage
        from queuerelay.worker.master import MasterFinder
        from queuerelay.worker.timed_out import end_message

        master = MasterFinder(self._where, keys=self._settings.keys)
        link = Link(master, role="end", outage=Outage(), timeout=ANSWER_TIMEOUT)
        try:
            end_message(self._settings, link, queue, token)
        finally:
            link.close()


def _keys(prefix: str, results: str) -> Keys:
    keys = Keys(prefix=prefix, results=results)
    taken = overlap(results, keys)
    if taken is not None:
        raise ConfigError.of("--reply-prefix", results, f"a prefix apart from that of {taken!r}")
    return keys


def _address(url: RedisUrl) -> RedisUrl:
    """The server to connect to: of an embedded one its socket, by its directory."""
    if url.kind == "embedded":
        if not url.path:
            raise ConfigError.of("--redis", "embedded", "embedded:DIR, the relay's directory")
        return url.embedded_socket()
    return url


def _chdir(directory: str) -> None:
    try:
        os.chdir(directory)
    except OSError as error:
        raise ConfigError.of("--chdir", directory, f"a directory ({error.strerror})") from error


def _log_to_stderr(level: str) -> None:
    """One handler on our own logger: the root logger is the application's."""
    logger = logging.getLogger("queuerelay")
    for one in [logger, *(logging.getLogger(name) for name in list(logger.manager.loggerDict))]:
        if one.name.split(".")[0] == "queuerelay":
            one.disabled = False
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_SafeFormatter("%(asctime)s %(levelname)s %(process)d %(message)s"))
        logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(level.upper())


class _SafeFormatter(logging.Formatter):
    """Lines of our log: foreign words in them look like no other line, and do nothing to a
    terminal.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = safe_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return safe_lines(super().formatException(ei)).replace("\n", "\n\t")


class _Unsaid(str):
    """A default, as nobody gave the option."""

    __slots__ = ()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message.removeprefix("argument "))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="queuerelay-worker",
        description="Answers queuerelay's requests with a WSGI application.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("application", metavar="MODULE:APP", help="the WSGI application; . is searched first")
    add(
        "--redis",
        metavar="URL",
        default=_Unsaid("localhost"),
        help="localhost, HOST:PORT, redis://, rediss://, unix:///PATH, several as "
        "redis://A,B/0 or sentinel://A,B/NAME, or embedded:DIR for a relay's embedded server",
    )
    add(
        "--redis-file",
        metavar="FILE",
        help="a file with that URL as its one line: a password does not show in the list of "
        "processes then. QUEUERELAY_REDIS and QUEUERELAY_REDIS_FILE in the environment say the "
        "same, where no option does",
    )
    add(
        "--queues",
        type=_queues,
        default="requests",
        metavar="A,B",
        help="queues to serve, the most urgent first",
    )
    add(
        "--lease",
        type=_number(float, 0.1, 86400, "seconds"),
        default=10.0,
        metavar="SECONDS",
        help="a dead worker's message is taken over after this long; renewed while it lives",
    )
    add(
        "--max-reply",
        type=_number(int, 1, 256 * _MIB, "bytes"),
        default=MAX_REPLY,
        metavar="BYTES",
        help="longest body that is sent as one reply; a longer one is streamed",
    )
    add(
        "--requests",
        type=_number(int, 0, 10**9, "requests"),
        default=0,
        metavar="N",
        help="end with status 0 after so many requests; 0: never",
    )
    add(
        "--failed-redact",
        type=_fields,
        metavar="NAMES",
        help="header fields of requests that are no part of dead letters, beside those with "
        "credentials, with commas",
    )
    add(
        "--timeout",
        type=_timeout,
        default=_DEADLINE,
        metavar="SECONDS",
        help="how long the application may take for a request, and then for each part of a "
        "streamed answer: a process that takes longer is killed and replaced; deadline: as long as "
        "the client waits; 0: for ever",
    )
    add("--prefix", default=Keys().prefix, help="of queuerelay's own keys in Redis; the relay's")
    add(
        "--reply-prefix",
        default=Keys().results,
        help="of the lists that take replies to jobs; the pools'",
    )
    add("--chdir", metavar="DIR", help="go there before the application is imported")
    add(
        "--log-level",
        choices=_LEVELS,
        default="info",
        help="least severe line to log; debug has one for each request",
    )
    add("--version", action="version", version=f"queuerelay {__version__}")
    return parser


def _queues(text: str) -> tuple[str, ...]:
    queues = tuple(dict.fromkeys(queue.strip() for queue in text.split(",")))
    if not all(queue and ":" not in queue and "*" not in queue for queue in queues):
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected names with commas between, without : and *"
        )
    return queues


def _timeout(text: str) -> float | None:
    return None if text == _DEADLINE else _number(float, 0, 86400, "seconds")(text)


def _number(
    kind: type[int] | type[float], least: float, most: float, unit: str
) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(-1)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"got {text!r}, expected a number of {unit} from {least:g} to {most:g}"
            )
        return value

    return convert
