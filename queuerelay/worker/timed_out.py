"""The end of a message whose process was killed for hanging: a dead letter, and 504 for its client.

It may not run again: it would hang the next process.
"""

import logging
import time
from typing import Any, Final

from redis.exceptions import RedisError

from queuerelay.wire import commands
from queuerelay.wire.claim import read_meta
from queuerelay.wire.message import Attempt
from queuerelay.wire.recovery import Fail, Verdict, failed, understood
from queuerelay.worker.link import Link
from queuerelay.worker.settings import WorkerSettings

log = logging.getLogger(__name__)

#: Seconds between two tries while Redis is away.
AGAIN: Final = 0.2


def end_message(settings: WorkerSettings, link: Link, queue: str, token: str) -> bool:
    """End what `token` holds of `queue`; False where its lease is gone, or Redis was away for as
    long as a lease lasts: then whoever finds it decides.
    """
    until = time.monotonic() + settings.lease
    while True:
        try:
            return _end(settings, link, queue, token)
        except RedisError as error:
            if time.monotonic() > until:
                log.warning("the message of a killed process could not be ended: %s", error)
                return False
        time.sleep(AGAIN)


def _end(settings: WorkerSettings, link: Link, queue: str, token: str) -> bool:
    _, _, meta = settings.keys.lease(queue)
    asked = [*commands.find(settings.keys, [queue], token), ("HGET", meta, token)]
    raw, (seconds, microseconds), holding = _answered(link, *asked)
    if raw is None:
        return False
    now = int(seconds) + int(microseconds) / 1e6
    since, _ = read_meta(holding or b"")
    verdict = _verdict(settings, raw, queue, since=now if since is None else since, now=now)
    (done,) = _answered(link, commands.conclude(settings.keys, queue, token, verdict))
    return bool(done)


def _answered(link: Link, *asked: commands.Command | commands.Call[bool]) -> list[Any]:
    answers = link.send(*asked)
    for one in answers:
        if isinstance(one, Exception):
            raise one
    return answers


def _verdict(
    settings: WorkerSettings, raw: bytes, queue: str, *, since: float, now: float
) -> Verdict:
    worker = settings.holder
    found = understood(
        raw, keys=settings.keys, queue=queue, worker=worker, now=now, kept=settings.kept
    )
    if isinstance(found, Fail):
        return found
    message, reply_to = found
    request = message.request
    run = max(0.0, now - since)
    what = "a message" if request is None else f"{request.method} {request.url!r}"
    log.error("worker-timeout: %s after %.1f s; now in resque:failed", what, run)
    lost = Attempt(started_at=since, run=run, error="time-out", worker=worker)
    return failed(
        raw,
        message,
        reply_to=reply_to,
        queue=queue,
        worker=worker,
        exception="WorkerTimeout",
        error="the application took too long, and its process was killed; not tried again",
        now=now,
        attempts=(*message.attempts, lost),
        timed_out=True,
        kept=settings.kept,
    )
