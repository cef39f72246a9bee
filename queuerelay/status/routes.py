"""All routes of the status listener, in one list."""

from queuerelay.status.actions import actions
from queuerelay.status.route import StatusRoute
from queuerelay.status.status import Status
from queuerelay.status.views import document, metrics, openapi, page, probes, stats


def routes(status: Status) -> list[StatusRoute]:
    """The routes for `status`; the first that fits answers."""
    return [
        *page.routes(status),
        *document.routes(status),
        *metrics.routes(status),
        *stats.routes(status),
        *probes.routes(status),
        *actions.routes(status),
        *openapi.routes(status),
    ]
