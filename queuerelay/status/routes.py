"""All routes of the status listener, in one list.

Where reading needs credentials, all that show something are behind the guard; probes never are.
"""

from dataclasses import replace

from twisted.internet.defer import Deferred

from queuerelay.status.actions import actions
from queuerelay.status.guard import Denied, Guard
from queuerelay.status.route import Handler, StatusRequest, StatusResponse, StatusRoute, text_answer
from queuerelay.status.status import Status
from queuerelay.status.views import document, metrics, openapi, page, probes, stats


def routes(status: Status) -> list[StatusRoute]:
    """The routes for `status`; the first that fits answers."""
    readable = [
        *page.routes(status),
        *document.routes(status),
        *metrics.routes(status),
        *stats.routes(status),
        *openapi.routes(status),
    ]
    if status.guard.private:
        readable = [replace(one, handler=_private(one.handler, status.guard)) for one in readable]
    return [*readable, *probes.routes(status), *actions.routes(status)]


def _private(handler: Handler, guard: Guard) -> Handler:
    """The same for those alone who may read."""

    def answer(ask: StatusRequest) -> StatusResponse | Deferred[StatusResponse]:
        try:
            guard.let_read(ask)
        except Denied as denied:
            return text_answer(denied.status, denied.text, denied.headers)
        return handler(ask)

    return answer
