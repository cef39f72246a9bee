"""Ids of messages are whole for those alone who may read with credentials."""

import json
from dataclasses import replace

import pytest

from queuerelay.status.collect.shortened import REST, SHOWN, short_id
from queuerelay.status.status import Access
from tests.unit.status.page_scene import snapshot

TOKEN = "0123456789abcdef"
ID = "e75f1b81-00112233445566778899aabbccddeeff"
AUTHORIZED = ("Authorization", f"Bearer {TOKEN}")
PATHS = ("/", "/status.json", "/failures.json", "/metrics", "/stats.txt", "/history.json")
PROBES = ("/healthz", "/readyz")


@pytest.fixture
def stage(tmp_path, make_stage):
    def make(**access):
        file = tmp_path / "credentials"
        file.write_text(f"bearer all {TOKEN}\nbearer:operate,submit op {TOKEN}1\n")
        file.chmod(0o600)
        return make_stage(access=Access(credentials=str(file), **access))

    return make


def fill(stage):
    """Put the id everywhere where one is shown."""
    shown = snapshot()
    pool = shown.pools[0]
    slot, exit = pool.slots[0], pool.exits[0]
    letter = shown.failures.items[0]
    stage.status.collector._snapshot = replace(
        shown,
        pools=(
            replace(pool, slots=(replace(slot, message=ID),), exits=(replace(exit, message=ID),)),
        ),
        failures=replace(shown.failures, items=(replace(letter, message=ID),)),
    )


def test_an_id_is_cut_where_it_could_be_used():
    assert short_id(ID) == "e75f1b81-0011223" + REST
    assert short_id("x" * SHOWN) == "x" * SHOWN
    assert short_id("") == ""


@pytest.mark.parametrize("path", ["/", "/status.json"])
def test_ids_are_whole_for_those_alone_who_may_read(stage, path):
    stage = stage()
    fill(stage)
    for fields, whole in (
        ((), False),
        (AUTHORIZED, True),
        (("Authorization", f"Bearer {TOKEN}1"), False),
        (("Authorization", "Bearer 00000000000000"), False),
        # Each way is written once, and neither instead of the other.
        ((), False),
        (AUTHORIZED, True),
    ):
        answer = stage.ask(path, "GET", *([fields] if fields else []))
        assert answer.status == 200
        body = answer.body.decode()
        assert (ID in body) is whole
        assert short_id(ID)[:-1] in body


def test_everything_but_the_probes_may_need_credentials(stage):
    stage = stage(private=True)
    for path in (*PATHS, "/page.css", "/openapi.json"):
        assert stage.ask(path).status == 401, path
        assert stage.ask(path, "GET", ("Authorization", f"Bearer {TOKEN}1")).status == 403, path
        assert stage.ask(path, "GET", AUTHORIZED).status == 200, path
    for path in PROBES:
        assert stage.ask(path).status == 200, path


def test_what_needs_credentials_says_so_to_browsers(stage):
    answer = stage(private=True).ask("/", "GET", ("Accept", "text/html"))
    assert answer.get("www-authenticate").startswith(b"Basic ")


def test_a_cut_id_will_do_to_stop_a_message(stage, monkeypatch):
    stage = stage()
    fill(stage)
    ordered = []
    give = stage.broker.orders.give
    monkeypatch.setattr(
        stage.broker.orders,
        "give",
        lambda node, order: (ordered.append(json.loads(order)), give(node, order))[1],
    )
    connection = stage.connect_status()
    head = f"POST /jobs/{ID[:SHOWN]}%E2%80%A6/stop HTTP/1.1\r\nHost: localhost\r\n"
    connection.send(f"{head}{AUTHORIZED[0]}: {AUTHORIZED[1]}\r\nContent-Length: 0\r\n\r\n".encode())
    # Nobody is there who would do it.
    stage.turn(5)
    assert connection.response("POST").status == 504
    assert [one["message"] for one in ordered] == [ID]
