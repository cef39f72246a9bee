"""``/stats.txt`` as resque-web writes it, for tools that read that.

``+=`` marks what only grows. As there, ``resque.failed`` is the number of dead letters, which goes
down again where they are taken out.
"""

import re
from typing import Final

from queuerelay.status.collect.snapshot import StatusSnapshot
from queuerelay.status.route import StatusRequest, StatusResponse, StatusRoute
from queuerelay.status.status import Status

#: Characters that would begin another line, or end the name; anybody may name a queue on Redis.
_BREAKS: Final = re.compile(r"[\s=\x00-\x1f\x7f-\x9f\u2028\u2029]")


def routes(status: Status) -> list[StatusRoute]:
    """The route of ``/stats.txt``."""

    def stats(ask: StatusRequest) -> StatusResponse:
        return StatusResponse(body=stats_txt(status.snapshot).encode("utf-8", "replace"))

    return [StatusRoute(path="stats.txt", handler=stats)]


def stats_txt(snapshot: StatusSnapshot) -> str:
    """The lines of ``/stats.txt``."""
    resque = snapshot.resque
    lines = [
        f"resque.pending={snapshot.depth}",
        f"resque.processed+={resque.processed}",
        f"resque.failed+={snapshot.failures.total}",
        f"resque.workers={resque.workers}",
        f"resque.working={resque.working}",
        *(f"queues.{_BREAKS.sub('_', queue.name)}={queue.depth}" for queue in snapshot.queues),
    ]
    return "\n".join(lines) + "\n"
