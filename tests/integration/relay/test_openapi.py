"""The status listener's OpenAPI document: complete, and true of a real daemon."""

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis.checks import not_a_server_error

from queuerelay.status.actions import actions
from queuerelay.status.status import Status
from queuerelay.status.views.openapi import openapi
from queuerelay.testing import MemoryBroker
from tests.integration.relay.place import TOKEN, Place

schema = schemathesis.openapi.from_dict(openapi())


@pytest.fixture
def place(tmp_path, daemon, fresh_valkey):
    return Place(tmp_path, daemon, fresh_valkey)


def test_nothing_that_is_asked_is_our_error(place):
    asked = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(max_examples=12, database=None, suppress_health_check=[*HealthCheck])
        def ask(case):
            if "pool" in (case.path_parameters or {}):
                # One that is there; what is not is found out before anything is done.
                case.path_parameters["pool"] = "default"
            answer = case.call(
                base_url=f"http://127.0.0.1:{place.port}",
                headers={"Authorization": f"Bearer {TOKEN}"},
                timeout=30,
            )
            case.validate_response(answer, checks=(not_a_server_error,))
            asked.add(answer.status_code)

        ask()
    # It came further than to the guard.
    assert asked >= {200, 201, 400, 404, 409}


def test_every_action_is_in_it():
    from twisted.internet.task import Clock

    clock = Clock()
    status = Status(MemoryBroker(clock=clock), address="memory", clock=clock)
    ours = {f"/{route.path}" for route in actions.routes(status)}
    theirs = {path for path, methods in openapi()["paths"].items() if "post" in methods}
    assert ours == theirs
