"""Snapshots for the tests of the page, with or without a text of the test's in every place that
takes one from elsewhere.
"""

import math
from collections.abc import Callable
from typing import Any

from queuerelay.broker.records import Gate
from queuerelay.status.collect.dead_letters import DeadLetter, DeadLetterAttempt, DeadLetters
from queuerelay.status.collect.history import History, Percentiles, Series
from queuerelay.status.collect.snapshot import (
    Health,
    Histograms,
    LoopStatus,
    NodeStatus,
    PoolStatus,
    QueueStatus,
    Reason,
    Redis,
    RelayStatus,
    Requests,
    Resque,
    Severity,
    StatusSnapshot,
)
from queuerelay.wire.histogram import Durations
from queuerelay.wire.node import ExitRecord, SlotState

#: 2026-09-21 14:13:20 UTC.
NOW = 1_790_000_000.0

Texts = Callable[[str], str]


def plain(text: str) -> str:
    """As it is."""
    return text


def percentiles(median: float) -> Percentiles:
    return Percentiles(count=9, p50=median, p95=2 * median, p99=9 * median)


def history(points: int = 360, **series: Any) -> History:
    """`points` of the hour; the first tenth and one stretch in the middle are not known."""
    wave = tuple(
        None if n < points / 10 or 0.4 < n / points < 0.5 else abs(50 * math.sin(n / 20))
        for n in range(points)
    )
    lines = dict.fromkeys(("depth", "oldest_age", "in_per_minute", "out_per_minute", "held"), wave)
    return History(
        since=NOW - 10 * points,
        step=10.0,
        times=tuple(NOW - 10 * (points - 1 - n) for n in range(points)),
        overall=Series(**{**lines, **series}),
        failed=tuple(3 for _ in range(points)),
        queues={},
    )


def snapshot(texts: Texts = plain, **fields: Any) -> StatusSnapshot:
    """One of everything; each text that comes from elsewhere went through `texts`."""
    t = texts
    exits = tuple(
        ExitRecord(
            at=NOW - 60 * n,
            message=t(f"m-{n}"),
            queue=t("requests"),
            code=None if n == 1 else n,
            signal=t("SIGKILL") if n == 1 else None,
            run=1.25,
            outcome=t("success" if n == 0 else "crash"),
            stderr=t("Traceback:\n  it broke\n"),
            stdout=t("Traceback:\n  it broke\n"),
        )
        for n in range(3)
    )
    pool = PoolStatus(
        name=t("thumbnails"),
        node=t("node-2"),
        host=t("alpha"),
        queues=(t("requests"), t("requests.low")),
        resident=False,
        size=4,
        min=1,
        max=8,
        busy=1,
        resting=t("command not found"),
        looping=0,
        unstartable=t("1 message cannot be started: exit status 127"),
        slots=(
            SlotState(
                number=1,
                state=t("running"),
                pid=4711,
                message=t("m-9"),
                queue=t("requests"),
                age=3.5,
                attempt=2,
            ),
        ),
        exits=exits,
        outcomes={t("success"): 1234, t("crash"): 2, "transient": 0},
        per_minute={t("success"): 12.0},
        wait=percentiles(0.01),
        run=percentiles(1.5),
    )
    letter = DeadLetter(
        id=t("0" * 40),
        index=0,
        message=t("m-dead"),
        queue=t("requests"),
        cls=t("Thumbnail"),
        exception=t("JobFailed"),
        error=t("exit status 70"),
        failed_at=t("2026/09/21 13:00:00 UTC"),
        worker=t("alpha:77:requests"),
        attempts=(
            DeadLetterAttempt(
                started_at=NOW - 900,
                run=2.0,
                code=70,
                signal="",
                error=t("exit status 70"),
                stderr=t("line 1\nline 2\n"),
                stdout=t("line 1\nline 2\n"),
            ),
            DeadLetterAttempt(
                started_at=0.0, run=0.0, code=None, signal=t("SIGSEGV"), error=t("e"), stderr=""
            ),
        ),
        retried=True,
    )
    node = NodeStatus(
        id=t("node-2"),
        role=t("pool"),
        host=t("alpha"),
        pid=77,
        version=t("1.0"),
        beat_age=1.0,
        stale=False,
        skew=-2.5,
        draining=False,
        loops=(LoopStatus(name=t("reap"), age=99.0, stale=True),),
        local=False,
    )
    queue = QueueStatus(
        name=t("requests"),
        configured=True,
        depth=7,
        oldest_age=125.0,
        delayed=2,
        in_flight=1,
        in_per_minute=12.0,
        out_per_minute=3.25,
        held=5,
        gated=1,
        wait=percentiles(0.012),
        run=percentiles(0.4),
        total=Percentiles(),
        gate=Gate(since=NOW - 100, by=t("anna")),
        pools=(t("thumbnails"),),
        workers=4,
        served=True,
    )
    values: dict[str, Any] = {
        "at": NOW,
        "since": NOW - 7200,
        "version": "1.0",
        "window": 300.0,
        "health": Health(
            severity=Severity.WARNING,
            reasons=(
                Reason(
                    severity=Severity.WARNING,
                    code="paused",
                    subject=t("requests"),
                    text=f"queue {t('requests')} is paused",
                ),
            ),
        ),
        "redis": Redis(
            up=True,
            silent=0.0,
            version=t("Valkey 9.1.0"),
            latency=0.0004,
            memory_used=1_500_000,
            memory_max=None,
            eviction=t("noeviction"),
            persistence="aof",
            address=t("localhost:6379"),
        ),
        "nodes": (node,),
        "queues": (queue,),
        "queues_left_out": 0,
        "held": (
            RelayStatus(
                node=t("node-1"),
                host=t("beta"),
                pid=78,
                count=5,
                gated=1,
                bytes=12_345,
                streaming=3,
                unsent_bytes=1_500_000,
                oldest_age=12.5,
                max_count=10_000,
                max_bytes=2**28,
                draining=False,
            ),
        ),
        "requests": Requests(
            ends={"answered": 10},
            refusals={t("queue-full"): 1},
            replies={t("replies_late"): 2},
            broken_off={t("behind"): 4},
        ),
        "pools": (pool,),
        "jobs": {},
        "histograms": Histograms(total={t("requests"): Durations(counts=(1,), sum=1.0)}),
        "failures": DeadLetters(total=41, start=0, items=(letter,)),
        "resque": Resque(workers=3, working=1, processed=99, failed=4),
        "history": history(),
    }
    return StatusSnapshot(**{**values, **fields})


def empty(**fields: Any) -> StatusSnapshot:
    """Of a process that has just been started and has seen nothing."""
    return snapshot(
        **{
            "health": Health(),
            "redis": Redis(address="localhost:6379"),
            "nodes": (),
            "queues": (),
            "held": (),
            "pools": (),
            "failures": DeadLetters(),
            "history": history(0),
            **fields,
        }
    )
