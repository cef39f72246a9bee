"""``twistd queuerelay``: options in, service out. The only module that touches the global reactor,
the process's signals and its limits.
"""

import gc
import os
import pwd
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, NoReturn

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger
from twisted.python import usage
from twisted.python.components import Componentized

from queuerelay import __version__, safe_log
from queuerelay.clocks import use_monotonic
from queuerelay.config import OPTIONS, Config, Option, load
from queuerelay.daemon_log import DaemonLog
from queuerelay.errors import QueuerelayError
from queuerelay.processes import confine
from queuerelay.processes.heritage import HERITAGE
from queuerelay.redact import redact
from queuerelay.safe_text import safe_line

_log = Logger()


def _fail(error: Exception) -> NoReturn:
    """End with one line and exit status 1: a person reads what is wrong, without a traceback."""
    stderr = sys.__stderr__
    said = safe_line(redact(str(error)))
    if stderr is None or sys.stderr is stderr:
        raise SystemExit(f"queuerelay: {said}") from None
    # twistd has made its log of stderr by now; whoever started us looks at the real one.
    _log.critical("{error}", error=said)
    stderr.write(f"queuerelay: {said}\n")
    stderr.flush()
    raise SystemExit(1) from None


class Options(usage.Options):
    """The options of `queuerelay.config.OPTIONS`, and those that choose a file or only check it."""

    synopsis = "[options]"
    longdesc = (
        "Holds HTTP requests in a Redis queue, in Resque's format, until a worker answers them. "
        "For example: twistd -n queuerelay --redis localhost --listen tcp:8000. "
        "Every option can also stand in the file given by --config, with underscores for dashes; "
        "options on the command line win."
    )
    optParameters: ClassVar[list[list[Any]]] = [
        ["config", "c", None, "TOML file with options and routes"],
        *([one.name, None, None, one.described] for one in OPTIONS if not one.repeatable),
    ]
    optFlags: ClassVar[list[list[Any]]] = [
        ["check", None, "Check options and file, say what is wrong, and start nothing"],
    ]

    #: The configuration that the options make; there after `parseOptions`.
    configuration: Config

    def parseOptions(self, options: Any = None) -> None:
        """Read the command line; one line and exit status 1 where it is wrong."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            _fail(error)

    def parseArgs(self, *args: str) -> None:
        """Take no arguments: twistd has none for this plugin."""
        if args:
            _fail(usage.UsageError(f"got the argument {args[0]!r}, expected options only"))

    def postOptions(self) -> None:
        """Read the file, and check everything together."""
        given = {one.name: self[one.name] for one in OPTIONS if one.name in self}
        try:
            self.configuration = load(self["config"], given, os.environ)
            if self["check"]:
                # Imported late: it installs the reactor, which twistd may still want to choose.
                from twisted.internet import reactor

                from queuerelay.service import check

                check(self.configuration, reactor=reactor)
        except QueuerelayError as error:
            _fail(error)
        if self["check"]:
            sys.stdout.write("queuerelay: the configuration is valid\n")
            raise SystemExit(0)

    def opt_version(self) -> NoReturn:
        """Show the version, and exit."""
        sys.stdout.write(f"queuerelay {__version__}\n")
        raise SystemExit(0)


def _repeatable(option: Option) -> Any:
    """A method as `usage.Options` wants it for an option that may be given more than once."""

    def opt(self: Options, value: str) -> None:
        self.opts.setdefault(option.name, []).append(value)

    opt.__doc__ = option.described
    return opt


for _option in OPTIONS:
    if _option.repeatable:
        setattr(Options, f"opt_{_option.name.replace('-', '_')}", _repeatable(_option))


def makeService(options: Options) -> IService:
    """The daemon for these options."""
    from twisted.internet import reactor

    # Before anything is logged: twistd opens its log after this.
    safe_log.install()
    # Before anything has a timer.
    use_monotonic(reactor)
    ending = _Ending(reactor)
    ending.install()
    # Imported late: it takes a while, and a signal meanwhile shall end us in order.
    from queuerelay.service import Daemon

    try:
        config = options.configuration
        for_all = all(pool.no_new_privs is not False for pool in config.pools)
        if not for_all:
            # Where one pool may, the others have a command in front of theirs.
            pools = [
                replace(one, no_new_privs=one.no_new_privs is not False) for one in config.pools
            ]
            config = replace(config, pools=tuple(pools))
        daemon = Daemon(config, reactor=reactor)
        twistd: Mapping[str, Any] = options.parent or {}
        if twistd.get("umask") is None:
            # It has not been set yet for a daemon, and scripts get the one of now.
            umask = os.umask(0o077)
            os.umask(umask)
            HERITAGE.keep_umask(umask)
        return _Process(
            daemon,
            reactor,
            ending,
            twistd=twistd,
            log=_log_of(twistd, config),
            no_new_privs=for_all,
        )
    except QueuerelayError as error:
        _fail(error)


def _user_of(twistd: Mapping[str, Any]) -> tuple[int, int] | None:
    """Numbers of the user and group that twistd's --uid and --gid make of a process of root; None
    where they do not.
    """
    user: int | None = twistd.get("uid")
    group: int | None = twistd.get("gid")
    if user is not None and group is None:
        group = pwd.getpwuid(user).pw_gid
    if os.geteuid() != 0 or group is None:
        return None
    return (-1 if user is None else user, group)


def _log_of(twistd: Mapping[str, Any], config: Config) -> DaemonLog | None:
    """The log in the place of twistd's own; None where twistd was told to log elsewhere."""
    path, to_stdout = twistd.get("logfile"), twistd.get("nodaemon") or twistd.get("debug")
    if path == "-" or (to_stdout and not path):
        path, stdout = None, sys.__stdout__
        if stdout is None or not to_stdout:
            return None
    else:
        path, stdout = path or "twistd.log", None
    if not twistd or twistd.get("syslog") or twistd.get("logger"):
        return None
    return DaemonLog(
        path,
        stdout=-1 if stdout is None else stdout.fileno(),
        log_format=config.log_format,
        largest=config.log_max_size,
        keep=config.log_keep,
    )


class _Ending:
    """SIGTERM and SIGINT, from the first moment on: the first ends the daemon in order, be it that
    the reactor does not run yet, the second skips the waiting.

    Twisted's own handlers ignore a second signal, and end the process by the signal; a supervisor
    shall see exit status 0.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._asked = False
        #: Called at the second signal.
        self.hurry: Callable[[], object] = lambda: None

    def install(self) -> None:
        """Take the signals, and keep them when the reactor takes them for itself."""
        self._take()
        # The reactor installs its handlers in the middle phase of its start, before this one's.
        self._reactor.addSystemEventTrigger("before", "startup", self._hold)
        self._reactor.addSystemEventTrigger("during", "startup", self._take)

    def _hold(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, self._SIGNALS)

    def _take(self) -> None:
        for number in self._SIGNALS:
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._SIGNALS)

    def _on_signal(self, *_: object) -> None:
        if self._asked:
            self._reactor.callFromThread(self.hurry)
        else:
            self._asked = True
            # Before the reactor runs, this waits until it does.
            self._reactor.callFromThread(self._reactor.stop)


class _Process(Service):
    """The process around the daemon: its signals, memory and open files."""

    name = "queuerelay"

    def __init__(
        self,
        daemon: Any,
        reactor: Any,
        ending: _Ending,
        *,
        twistd: Mapping[str, Any],
        log: DaemonLog | None = None,
        no_new_privs: bool = False,
    ) -> None:
        self._daemon = daemon
        self._no_new_privs = no_new_privs
        self._user = _user_of(twistd)
        self._twistd = twistd
        self._log = log
        self._reactor = reactor
        self._rotate: Callable[[int, Any], Any] | None = None
        ending.hurry = daemon.hurry

    def setServiceParent(self, parent: Any) -> None:
        """Become the service of `parent`; twistd's application takes the log from there."""
        if self._log is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._log)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Open what needs privileges; one line and exit status 1 where that fails."""
        # Before anybody can know of us: else they would end us.
        signal.signal(signal.SIGHUP, self._on_hangup)
        # Whatever observer --logger names may have something to do on it as well.
        rotate = signal.getsignal(signal.SIGUSR1)
        self._rotate = rotate if callable(rotate) else None
        signal.signal(signal.SIGUSR1, self._on_user_signal)
        # Each held client is an open file, and the usual soft limit is 1,024.
        HERITAGE.raise_open_files()
        try:
            self._daemon.privilegedStartService()
            if self._user is not None:
                self._daemon.hand_over(*self._user)
        except QueuerelayError as error:
            self._fail(error)

    def startService(self) -> None:
        """Start the daemon."""
        super().startService()
        # Only now: twistd has become the user that it was told to be.
        confine.keep_secrets()
        if self._no_new_privs:
            confine.forgo_privileges()
        try:
            if self._log is not None:
                self._log.open()
            self._daemon.startService()
        except QueuerelayError as error:
            self._fail(error)
        self._reactor.callWhenRunning(self._settle)

    def stopService(self) -> Deferred[None]:
        """Stop the daemon; fires when nothing is left running."""
        super().stopService()
        stopped: Deferred[None] = self._daemon.stopService()
        return stopped

    def _fail(self, error: Exception) -> NoReturn:
        if self._log is not None:
            # Of a daemon it is where the reason is looked for; and that user's file, not root's.
            if self._user is not None and os.geteuid() == 0:
                user, group = self._user
                os.setgid(group)
                os.setuid(0 if user == -1 else user)
            with suppress(QueuerelayError):
                self._log.open()
        try:
            _fail(error)
        finally:
            # What twistd does for exceptions of other kinds.
            if self._twistd.get("pidfile"):
                with suppress(OSError):
                    os.unlink(self._twistd["pidfile"])
            pipe = self._twistd.get("statusPipe")
            if pipe is not None:
                # Whoever became a daemon waits for word on it, and looks at the log then.
                os.write(pipe, f"1 {redact(str(error))}".encode("ascii", "backslashreplace")[:100])

    def _settle(self) -> None:
        # What is there now stays: keep the collector from walking it, and let it walk the requests
        # less often. Cuts p99 to a quarter; what a request allocates is freed by reference counts.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    def _on_hangup(self, *_: object) -> None:
        if self._log is not None:
            self._reactor.callFromThread(self._log.file.reopen)
        self._reactor.callFromThread(self._daemon.reload)

    def _on_user_signal(self, number: int, frame: Any) -> None:
        if self._rotate is not None:
            self._rotate(number, frame)
        if self._log is not None:
            self._reactor.callFromThread(self._log.file.rotate)
        self._reactor.callFromThread(self._daemon.reopen)
