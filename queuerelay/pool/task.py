"""One message in a pool: what its script is given, and what is made of what the script did.

Plain values in and out; the pool starts the processes and talks to the broker.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson

from queuerelay.config import PoolConfig
from queuerelay.config.command import Template
from queuerelay.errors import ReplyError
from queuerelay.pool.environment import base_environment, message_environment
from queuerelay.pool.exits import ExitRules, ProcessEnd, decide
from queuerelay.pool.output import Capture
from queuerelay.pool.program import Directory, find_program
from queuerelay.processes.confine import ProcessLimits, Rights, entry_of, prefix
from queuerelay.wire import exact
from queuerelay.wire.cgi import CgiReply, cgi_environment, parse_cgi_output
from queuerelay.wire.claim import Claim
from queuerelay.wire.destination import destination
from queuerelay.wire.failure import KEPT, Kept, encode_failure
from queuerelay.wire.keys import Keys
from queuerelay.wire.message import Attempt, Message, Request, decode_message
from queuerelay.wire.outcome import Outcome
from queuerelay.wire.reply import NO_BODY_STATUSES, encode_reply

#: May be an integer that orjson would make a float of.
_LONG: Final = re.compile(rb"[0-9]{19}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A message that a script is to work on."""

    claim: Claim
    message: Message
    #: From 1.
    attempt: int
    #: ``args[0]``, with its integers as they are; None where there is none.
    argument: Any
    #: The list that takes the reply, None where nobody waits for one.
    reply_to: str | None

    @property
    def id(self) -> str:
        """The message's id; its token where it has none."""
        if self.message.request is not None:
            return self.message.request.node_id
        return self.message.id or self.claim.token

    @property
    def wants_output(self) -> bool:
        """Whether stdout is somebody's answer."""
        return self.reply_to is not None

    def stdin(self) -> bytes:
        """What the script reads: the request's body, or ``args[0]`` as JSON.

        Raises `MessageError` where that cannot be written again.
        """
        if self.message.request is not None:
            return self.message.request.body
        try:
            return orjson.dumps(self.argument)
        except TypeError:
            # orjson reads deeper than it writes, and writes no integer past 64 bits.
            return exact.dump(self.argument)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingReply:
    """A reply, and the list that takes it."""

    reply_to: str
    reply: bytes


def read(claim: Claim, keys: Keys) -> Work:
    """The work in a claimed message; `MessageError` where it has none, or where its reply would go
    where none may.
    """
    message = decode_message(claim.message)
    reply_to = destination(message, keys)
    argument: Any = message.args[0] if message.args else None
    if message.request is None and message.args and _LONG.search(claim.message):
        argument = exact.load(claim.message)["args"][0]
    return Work(
        claim=claim,
        message=message,
        attempt=len(message.attempts) + 1,
        argument=argument,
        reply_to=reply_to,
    )


class Workshop:
    """How one pool's scripts are called, and how their exits are read."""

    def __init__(self, config: PoolConfig, *, inherited: Mapping[bytes, bytes]) -> None:
        self._config = config
        self._template = Template(
            config.command, option=f"pool {config.name}: command", fields=not config.resident
        )
        #: What every script of the pool has in its environment.
        self.base = base_environment(inherited, env=config.env, pass_env=config.pass_env)
        self._rules = ExitRules(exits=config.exits, stdout=config.status == "stdout")
        self._limits = ProcessLimits(
            address_space=config.rlimit_as, cpu=config.rlimit_cpu, files=config.rlimit_nofile
        )
        self._rights = Rights(
            user=config.user, group=config.group, no_new_privs=bool(config.no_new_privs)
        )
        if config.user is not None:
            self._at_home(config.user, config.env)
        self._directory = Directory(config.cwd)
        #: What is put before the command, for the directory that it was made for.
        self._prefix: list[bytes] | None = None
        self._prefix_for: str | None = None
        #: The program, and how its file was when it was looked at.
        self._found: tuple[str, tuple[int, ...] | None] | None = None

    def _at_home(self, user: str, env: Mapping[str, str]) -> None:
        """What a login would say of the user, as far as `env` does not."""
        with suppress(ValueError):
            # One that is not there is told at the check, and at each start.
            found = entry_of(user)
            own = {"HOME": found.pw_dir, "USER": found.pw_name, "LOGNAME": found.pw_name}
            for name in own.keys() - env.keys():
                self.base[os.fsencode(name)] = os.fsencode(own[name])

    def argv(self, work: Work) -> list[bytes]:
        """The command line for `work`.

        Raises `MessageError` where the message lacks a field, and `CannotStart` where the program
        is not there: looked up each time, as scripts are replaced while the pool runs.
        """
        return self._located(self._template.expand(work.argument))

    def resident_argv(self) -> list[bytes]:
        """The command line of a process without a message; raises `CannotStart`."""
        return self._located(self._template.expand(None))

    def check(self) -> None:
        """Raises `CannotStart` or `ValueError` where the program could not be started now."""
        self._located([b""])

    def _located(self, argv: list[bytes]) -> list[bytes]:
        directory = self._directory.now()
        if directory != self._prefix_for:
            self._prefix = self._found = None
        program = self._program(directory)
        argv[0] = os.fsencode(program)
        if self._prefix is None:
            umask = self._config.umask
            found = prefix(
                program,
                directory=directory,
                limits=self._limits,
                umask=umask,
                rights=self._rights,
            )
            self._prefix = [os.fsencode(part) for part in found]
            self._prefix_for = directory
        return [*self._prefix, *argv]

    def _program(self, directory: str | None) -> str:
        """Where the program is now; `CannotStart` where it is not.

        The whole search costs a twentieth of a short job, so it is left out while the file that
        it found is the very same. What it would find besides, as a missing interpreter, the start
        itself says, but not through a prefix: then it is made each time.
        """
        if self._found is not None and not self._prefix:
            program, signature = self._found
            if _signature(program) == signature:
                return program
        path = self.base.get(b"PATH", b"").decode("utf-8", "surrogateescape")
        program = find_program(self._template.program, path=path, cwd=directory)
        self._found = program, _signature(program)
        return program

    def environment(self, work: Work, *, skew: float = 0.0) -> dict[bytes, bytes]:
        """The environment for `work`; its deadline by the clock of this host, which is `skew`
        seconds ahead of that of messages.

        Raises `BadRequest` for a request that no environment can carry.
        """
        request = work.message.request
        own = message_environment(
            message_id=work.id,
            queue=work.claim.queue,
            attempt=work.attempt,
            deadline=request.deadline + skew if request is not None else None,
        )
        if request is None:
            return {**self.base, **own}
        extra: dict[bytes, bytes] = {}
        if self._config.script_filename is not None:
            # php-cgi refuses to run without both.
            extra[b"SCRIPT_FILENAME"] = os.fsencode(self._config.script_filename)
            extra[b"REDIRECT_STATUS"] = b"200"
        meta = cgi_environment(request, script_name=self._config.script_name, extra=extra)
        return {**self.base, **meta, **own}

    def outcome(self, work: Work, exit: ProcessEnd, output: Capture) -> Outcome:
        """What `exit` means for `work`."""
        printed = self._rules.stdout and work.message.request is None
        return decide(exit, self._rules, stdout=output.excerpt() if printed else None)


def _signature(path: str) -> tuple[int, ...] | None:
    """Changes with the file's place, content and rights; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def success(work: Work, output: Capture, *, wait: float, run: float) -> OutgoingReply | None:
    """The reply that a script's stdout is, if anybody waits for one.

    Raises `ReplyError` where it is none: no CGI header block, or output of which some is missing.
    """
    message = work.message
    if work.reply_to is None:
        return None
    try:
        printed = output.value()
    except ValueError as error:
        raise ReplyError(f"too much output: {error}") from error
    timing = {"wait": max(0.0, wait), "run": run}
    if message.request is None:
        reply = encode_reply(node_id=_node_id(work), body=printed, timing=timing)
    else:
        parsed = parse_cgi_output(printed)
        if len(parsed.body) < (parsed.declared or 0) and not _without_body(message.request, parsed):
            raise ReplyError(
                f"Content-Length says {parsed.declared} bytes, and {len(parsed.body)} were printed"
            )
        reply = encode_reply(
            node_id=message.request.node_id,
            status=parsed.status,
            headers=parsed.headers,
            body=parsed.body,
            timing=timing,
        )
    return OutgoingReply(reply_to=work.reply_to, reply=reply)


def _without_body(request: Request, answer: CgiReply) -> bool:
    """Whether a length stands for a body that is not sent (RFC 9110 8.6)."""
    return request.method == "HEAD" or answer.status in NO_BODY_STATUSES


#: What the relay is to make of a status of ours.
_PROBLEMS: Final = {502: "worker-failed", 504: "worker-timeout"}


def refusal(work: Work, status: int, text: str) -> OutgoingReply | None:
    """The reply to whoever waits for a message that came to nothing, if anybody does."""
    if work.reply_to is None:
        return None
    return OutgoingReply(
        reply_to=work.reply_to,
        reply=encode_reply(
            node_id=_node_id(work),
            status=status,
            headers=[("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")],
            body=f"{text}\n".encode(),
            problem=_PROBLEMS.get(status),
        ),
    )


def _node_id(work: Work) -> str:
    """The id under which a reply to `work` is waited for; of a job that does not say, its own."""
    if work.message.request is not None:
        return work.message.request.node_id
    node_id = work.message.args[0].get("node_id")
    return node_id if isinstance(node_id, str) and node_id else work.id


def failure(
    work: Work,
    *,
    worker: str,
    reason: str,
    last: Attempt | None,
    now: float,
    kept: Kept = KEPT,
) -> bytes:
    """The entry for ``resque:failed``; `worker` is ``queuerelay.<host>:<pid>:<queues>``."""
    attempts = (*work.message.attempts, *((last,) if last is not None else ()))
    return encode_failure(
        raw=work.claim.message,
        queue=work.claim.queue,
        worker=worker,
        exception="JobFailed",
        error=f"{last.error}; {reason}" if last is not None else reason,
        failed_at=now,
        # Other tools show this alone.
        backtrace=(last.stderr or last.stdout).splitlines() if last is not None else (),
        attempts=attempts,
        kept=kept,
    )
