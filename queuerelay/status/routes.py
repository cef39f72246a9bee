"""Everything that the status listener answers, in one list."""

from queuerelay.status import document, metrics, stats
from queuerelay.status.route import Answer, Ask, Route
from queuerelay.status.status import Status


def routes(status: Status) -> list[Route]:
    """The routes for `status`; the first that fits answers."""
    return [
        Route(path="", handler=_page),
        *document.routes(status),
        *metrics.routes(status),
        *stats.routes(status),
    ]


def _page(ask: Ask) -> Answer:
    return Answer(body=b"queuerelay: /status.json, /history.json\n")
