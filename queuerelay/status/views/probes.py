"""``/healthz``, ``/readyz`` and ``/healthz/deep``: for probes, about this very process.

- ``/healthz`` is red when one of the loops of this process turns no more: start it anew. That Redis
  is away is no reason to.
- ``/readyz`` is red while Redis is away or cannot be used, or the process drains: send it nobody.
- ``/healthz/deep`` sends a request through a queue and a worker and waits for the answer: is
  anybody served?
"""

from dataclasses import asdict

from twisted.internet.defer import Deferred

from queuerelay.status.json_answer import json_answer
from queuerelay.status.route import StatusRequest, StatusResponse, StatusRoute
from queuerelay.status.status import Status


def routes(status: Status) -> list[StatusRoute]:
    """The routes of the probes."""
    probes = _Probes(status)
    return [
        StatusRoute(path="healthz", handler=probes.alive),
        StatusRoute(path="readyz", handler=probes.ready),
        StatusRoute(path="healthz/deep", handler=probes.deep),
    ]


class _Probes:
    def __init__(self, status: Status) -> None:
        self._status = status

    def alive(self, ask: StatusRequest) -> StatusResponse:
        stuck = [
            {"loop": loop.name, "age": round(loop.still, 3), "limit": loop.limit}
            for loop in self._status.loops()
            if loop.still > loop.limit
        ]
        return json_answer({"ok": not stuck, "stuck": stuck}, 503 if stuck else 200)

    def ready(self, ask: StatusRequest) -> StatusResponse:
        why = []
        if not self._status.broker.is_up:
            fault = self._status.broker.fault
            why.append("redis-down" if fault is None else fault.code)
        if any(one.code == "wrong-type" for one in self._status.snapshot.health.reasons):
            why.append("wrong-type")
        if self._status.draining:
            why.append("draining")
        return json_answer({"ok": not why, "reasons": why}, 503 if why else 200)

    def deep(self, ask: StatusRequest) -> StatusResponse | Deferred[StatusResponse]:
        probe = self._status.probe
        if probe is None:
            return json_answer({"ok": False, "reason": "no relay in this process"}, 501)
        return probe.check().addCallback(
            lambda result: json_answer(asdict(result), 200 if result.ok else 503)
        )
