"""A record of a relay and one of pools, each with something in every field."""

from queuerelay.wire.histogram import Histogram
from queuerelay.wire.node import (
    ExitRecord,
    GateState,
    JobDurations,
    LoopAge,
    PoolNode,
    PoolState,
    QueueState,
    RelayNode,
    SlotState,
)


def durations(*seconds):
    histogram = Histogram()
    for one in seconds:
        histogram.observe(one)
    return histogram.durations()


COMMON = {
    "id": "n1",
    "version": "1.2",
    "host": "alpha",
    "pid": 7,
    "at": 1_790_000_000.5,
    "skew": -2.5,
    "uptime": 12.5,
    "draining": True,
    "loops": (LoopAge("beat", 0.5, 20.0),),
}
RELAY = RelayNode(
    **COMMON,
    held=3,
    held_bytes=300,
    streaming=2,
    unsent_bytes=4096,
    oldest_age=1.5,
    max_held=10,
    max_held_bytes=1000,
    counters={"answered": 4, "aborted_behind": 1},
    refusals={"held-limit": 2},
    queues={
        "": QueueState(codes={"4xx": 1}),
        "requests": QueueState(
            held=3,
            gated=1,
            taken=9,
            codes={"2xx": 5},
            total=durations(0.1, 7.0),
            wait=durations(0.01),
            run=durations(0.02),
        ),
    },
    gates={"requests": GateState(since=1_790_000_000.0, by="anna")},
)
POOL = PoolNode(
    **COMMON,
    pools=(
        PoolState(
            name="mp3",
            queues=("mp3.high", "mp3"),
            size=4,
            min=1,
            max=8,
            resting="draining",
            slots=(SlotState(number=1, state="running", pid=9, message="m", queue="mp3", age=0.5),),
            exits=(
                ExitRecord(
                    at=1_790_000_000.0,
                    message="m",
                    queue="mp3",
                    code=None,
                    signal="SIGKILL",
                    run=1.5,
                    outcome="crash",
                    stderr="it broke",
                    stdout="it said so",
                ),
            ),
            counters={"crash": 1},
            rates={"crash": 0.25},
            resident=True,
            busy=1,
            looping=1,
            unstartable="1 message cannot be started: exit status 127",
            left={"mp3": 3},
            durations={"mp3": JobDurations(wait=durations(0.5), run=durations(1.5))},
        ),
    ),
)
