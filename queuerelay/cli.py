"""``queuerelay``: what an operator asks of a status listener, on the command line.

Exit status: 0 done; 1 the listener said no, or, with ``status --check``, something is wrong; 2 the
command line is wrong; 3 the listener does not answer, or cannot do it now.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from queuerelay import __version__
from queuerelay.client import ApiError, Client, NotDone, Unreachable
from queuerelay.overview import overview
from queuerelay.safe_text import safe
from queuerelay.terminal import colour, columns, prepare, show, span, table

DONE: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3

#: Characters of a dead letter's id in a list; they name the dead letter as the whole id does.
SHOWN: Final = 12

_URL: Final = "http://127.0.0.1:8080"
_EPILOG: Final = """\
examples:
  queuerelay status --watch
  queuerelay pause requests && ./deploy && queuerelay resume requests
  queuerelay failed list
  queuerelay failed retry --all
  queuerelay scale thumbnails 8
  queuerelay submit mp3 Mp3Job '[{"id": 7}]'

Actions need a token of the listener's --status-credentials file, from --token-file or from the
environment: QUEUERELAY_TOKEN. QUEUERELAY_URL is where the listener is, if not at
http://127.0.0.1:8080.

exit status: 0 done, 1 refused or not there, 2 wrong command line, 3 no answer
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; gives the exit status."""
    prepare()
    options = parser().parse_args(arguments)
    try:
        return _run(options)
    except NotDone as error:
        return _complain(str(error), REFUSED)
    except ApiError as error:
        return _complain(str(error), UNREACHABLE)
    except _Wrong as error:
        return _complain(str(error), USAGE)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        # The interpreter must not try to write the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            # Whoever read it has enough.
            return 141
        return _complain(f"cannot write: {error.strerror}", UNREACHABLE)


class _Wrong(Exception):
    """The command line is wrong."""


def _complain(text: str, status: int) -> int:
    print(f"queuerelay: {safe(text)}", file=sys.stderr)
    return status


def _run(options: argparse.Namespace) -> int:
    try:
        client = Client(options.url, token=_token(options), timeout=options.timeout)
    except ValueError as error:
        raise _Wrong(str(error)) from error
    run: Callable[[Client, argparse.Namespace], int] = options.run
    try:
        status = run(client, options)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        # Its fields are not those that we know.
        raise Unreachable(
            f"{options.url} answers as no status listener of queuerelay {__version__} does"
        ) from error
    sys.stdout.flush()
    return status


def _token(options: argparse.Namespace) -> str:
    if options.token_file is None:
        return os.environ.get("QUEUERELAY_TOKEN", "").strip()
    try:
        with open(options.token_file, encoding="utf-8") as file:
            return file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise _Wrong(f"--token-file: got {options.token_file!r}, expected a file ({reason})") from (
            error
        )


# The command line


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = argparse.ArgumentParser(
        prog="queuerelay",
        description="Look at queues, workers and failures, and act on them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"queuerelay {__version__}")
    made.add_argument(
        "--url",
        default=os.environ.get("QUEUERELAY_URL") or _URL,
        help="where the status listener is (default: QUEUERELAY_URL, or http://127.0.0.1:8080)",
    )
    made.add_argument(
        "--token-file",
        metavar="FILE",
        help="file with the bearer token for actions (default: QUEUERELAY_TOKEN)",
    )
    made.add_argument(
        "--timeout",
        type=_positive,
        default=20.0,
        metavar="SECONDS",
        help="how long an answer may take (default: 20; the listener takes 15 at most)",
    )
    commands = made.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Any, help: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=help, description=f"{help}.")
        one.set_defaults(run=run)
        return one

    status = command("status", _status, "Show health, queues, pools and failures")
    status.add_argument(
        "--watch",
        nargs="?",
        const=2.0,
        type=_positive,
        metavar="SECONDS",
        help="show it again and again (default: each 2 seconds)",
    )
    status.add_argument("--json", action="store_true", help="as JSON, unchanged")
    status.add_argument(
        "--check", action="store_true", help="exit status 1 where anything is critical"
    )
    for name, does, help in (
        ("pause", Client.pause, "Pause a queue: requests wait, and no worker takes any"),
        ("resume", Client.resume, "Let a paused queue go on"),
    ):
        one = command(name, _on_queue, help)
        one.set_defaults(does=does)
        one.add_argument("queue", metavar="QUEUE")
    _failed(commands)
    _pools(command)
    stop = command("stop", _stop, "End the script that works on a message")
    stop.add_argument("message", metavar="ID", help="of the message")
    stop.add_argument("--kill", action="store_true", help="at once, without grace")
    submit = command("submit", _submit, "Put a job on a queue, and print its id")
    submit.add_argument("queue", metavar="QUEUE")
    submit.add_argument("cls", metavar="CLASS")
    submit.add_argument(
        "args", metavar="ARGS", nargs="?", default="[]", help="a JSON list, - reads stdin"
    )
    return made


def _failed(commands: Any) -> None:
    group = commands.add_parser(
        "failed", help="Look at dead letters, try them again, drop them"
    ).add_subparsers(metavar="COMMAND", required=True)
    listed = group.add_parser("list", help="List dead letters, the newest first")
    listed.add_argument("--start", type=_whole, default=0, metavar="N", help="leave out so many")
    listed.add_argument("--count", type=_whole, default=20, metavar="N", help="at most (50)")
    listed.add_argument("--json", action="store_true", help="as JSON, unchanged")
    listed.set_defaults(run=_list)
    shown = group.add_parser("show", help="Show one, with its attempts")
    shown.add_argument("id", metavar="ID", help="of the dead letter or of its message")
    shown.set_defaults(run=_show)
    for name, does, help in (
        ("retry", Client.retry, "Put them back on their queues"),
        ("drop", Client.drop, "Take them out for good"),
    ):
        one = group.add_parser(name, help=help)
        one.set_defaults(run=_letters, does=does)
        one.add_argument("ids", metavar="ID", nargs="*", help="of dead letters or their messages")
        one.add_argument("--all", action="store_true", help="all that there are")
        one.set_defaults(cls=None, args=None)
        if name == "retry":
            one.add_argument("--class", dest="cls", metavar="CLASS", help="another than it had")
            one.add_argument("--args", help="others than it had, a JSON list")


def _pools(command: Any) -> None:
    scale = command("scale", _scale, "Change how many slots a pool has")
    drain = command("drain", _drain, "Let a pool take no more messages")
    restart = command("restart", _restart, "Replace a resident pool's processes one by one")
    for one in (scale, drain, restart):
        one.add_argument("pool", metavar="POOL")
        one.add_argument("--node", default="", help="on this node only, not on all that have it")
    scale.add_argument("size", metavar="N", type=_whole)
    drain.add_argument("--off", action="store_true", help="take messages again")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected seconds, at most 3600")
    return value


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number")
    return int(text)


# The commands


def _status(client: Client, options: argparse.Namespace) -> int:
    found = client.status()
    while True:
        if options.json:
            print(json.dumps(found))
        else:
            lines = overview(found, columns(sys.stdout), colour=colour(sys.stdout))
            if options.watch is not None and sys.stdout.isatty():
                rows = shutil.get_terminal_size().lines - 2
                if len(lines) > rows:
                    lines[rows:] = [f"... and {len(lines) - rows} lines more"]
                # Home, and clear what is below: nothing flickers.
                sys.stdout.write("\x1b[H\x1b[J")
            show(lines)
        sys.stdout.flush()
        if options.watch is None:
            critical = found.get("health", {}).get("severity") == "critical"
            return REFUSED if options.check and critical else DONE
        found = _next(client, options.watch)


def _next(client: Client, interval: float) -> dict[str, Any]:
    """The next status; a watch goes on while the listener is started anew."""
    while True:
        time.sleep(interval)
        try:
            return client.status()
        except Unreachable as error:
            _complain(str(error), UNREACHABLE)


def _on_queue(client: Client, options: argparse.Namespace) -> int:
    return _said(options.does(client, options.queue))


def _list(client: Client, options: argparse.Namespace) -> int:
    found = client.failures(options.start, min(options.count, 50))
    if options.json:
        print(json.dumps(found))
        return DONE
    rows = [
        (
            one["id"][:SHOWN],
            one["failed_at"],
            one["queue"],
            one["class"],
            one["message"],
            one["error"],
        )
        for one in found["items"]
    ]
    lines = [f"{found['total']} dead letters"]
    if rows:
        head = ("ID", "FAILED AT", "QUEUE", "CLASS", "MESSAGE", "ERROR")
        spare = ("MESSAGE", "CLASS", "FAILED AT")
        lines += ["", *table(head, rows, columns=columns(sys.stdout), spare=spare)]
    show(lines)
    return DONE


def _show(client: Client, options: argparse.Namespace) -> int:
    one = client.find([options.id], shown=SHOWN)[options.id]
    for name in ("id", "message", "queue", "class", "failed_at", "worker", "exception", "error"):
        show([f"{name + ':':<11}{safe(str(one[name]))}"])
    if one.get("text"):
        show(["", "it could not be read:", f"    {safe(one['text'])}"])
    for number, attempt in enumerate(one["attempts"], 1):
        # In words, as "exit status 137: SIGKILL"; of a foreign worker what there is.
        ended = attempt["error"] or attempt["signal"] or f"exit status {attempt['code']}"
        show(["", f"attempt {number}: {safe(ended)} after {span(attempt['run'])}"])
        for line in attempt["stderr"].splitlines():
            show([f"    {safe(line)}"])
        # A listener of an earlier release does not say it.
        for line in attempt.get("stdout", "").splitlines():
            show([f"    stdout: {safe(line)}"])
    return DONE


def _letters(client: Client, options: argparse.Namespace) -> int:
    if bool(options.ids) == options.all:
        raise _Wrong("expected either IDs or --all")
    if options.all:
        return _said(options.does(client, None))
    found = client.find([one for one in options.ids if len(one) == SHOWN], shown=SHOWN)
    ids = [found[one]["id"] if one in found else one for one in options.ids]
    mended = {} if options.cls is None else {"class": options.cls}
    if options.args is not None:
        mended["args"] = _json_list(options.args)
    if mended:
        if len(ids) != 1:
            raise _Wrong("--class and --args are for one dead letter")
        return _said(client.mend(ids[0], mended))
    return _said(options.does(client, ids))


def _scale(client: Client, options: argparse.Namespace) -> int:
    return _said(client.scale(options.pool, options.size, node=options.node))


def _drain(client: Client, options: argparse.Namespace) -> int:
    return _said(client.drain(options.pool, off=options.off, node=options.node))


def _restart(client: Client, options: argparse.Namespace) -> int:
    return _said(client.restart(options.pool, node=options.node))


def _stop(client: Client, options: argparse.Namespace) -> int:
    return _said(client.stop(options.message, kill=options.kill))


def _submit(client: Client, options: argparse.Namespace) -> int:
    args = _json_list(options.args)
    show([safe(str(client.submit(options.queue, options.cls, args).get("id", "")))])
    return DONE


def _json_list(given: str) -> list[Any]:
    try:
        args = json.loads(sys.stdin.read() if given == "-" else given)
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"ARGS: expected a JSON list: {error}") from error
    if not isinstance(args, list):
        raise _Wrong(f"ARGS: expected a JSON list, got {type(args).__name__}")
    return args


def _said(answer: dict[str, Any]) -> int:
    show([safe(str(answer.get("text", "done")))])
    return DONE


if __name__ == "__main__":
    sys.exit(main())
