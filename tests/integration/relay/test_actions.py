"""Actions of operators on the real daemon: what they do, and who may."""

import urllib.parse

import pytest
from twisted.internet.task import Clock

from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually
from tests.integration.relay.place import CREDENTIALS, TOKEN, Place

BASIC = "Basic YW5uOmxvbmdwYXNzd29yZDE="


@pytest.fixture
def place(tmp_path, daemon, fresh_valkey):
    return Place(tmp_path, daemon, fresh_valkey)


def test_a_job_goes_from_submit_to_its_end(place):
    id = place.submit("ok")
    eventually(lambda: [one["message"] for one in place.pool()["exits"]] == [id])
    status, _, _ = place.ask(
        "POST",
        "/queues/jobs/jobs",
        urllib.parse.urlencode({"class": "Job", "args": '["form"]'}).encode(),
        Authorization=f"Bearer {TOKEN}",
        Content_Type="application/x-www-form-urlencoded",
    )
    assert status == 201
    eventually(lambda: len(place.pool()["exits"]) == 2)
    assert place.client.smembers("resque:queues") >= {b"jobs"}


def test_a_queue_is_paused_and_resumed(place):
    assert place.post("/queues/jobs/pause") == (200, {"done": True, "text": "paused"})
    place.submit("ok")
    eventually(lambda: place.pool()["resting"])
    assert place.client.llen("resque:queue:jobs") == 1
    queue = next(one for one in place.status()["queues"] if one["name"] == "jobs")
    assert queue["gate"]["by"] == "deploy@127.0.0.1"
    assert place.post("/queues/jobs/resume")[1]["text"] == "resumed"
    eventually(lambda: place.pool()["exits"])
    assert place.post("/queues/jobs/resume") == (200, {"done": True, "text": "it was not paused"})


def test_dead_letters(place):
    ids = [place.submit(f"fail {number}") for number in range(4)]
    eventually(lambda: place.status()["failures"]["total"] == 4)
    letters = {one["message"]: one["id"] for one in place.status()["failures"]["items"]}
    place.post("/queues/jobs/pause")
    # By the id of the entry or of the message, one or several.
    assert place.post(f"/failed/{letters[ids[0]]}/retry")[1]["count"] == 1
    assert place.post(f"/failed/{letters[ids[0]]}/retry")[0] == 404
    assert place.post("/failed/retry", {"id": [ids[1], letters[ids[1]], "nothing"]})[1] == {
        "done": True,
        "text": "1 retried",
        "count": 1,
    }
    assert place.client.llen("resque:queue:jobs") == 2
    assert place.post(f"/failed/{ids[2]}/drop")[1]["count"] == 1
    assert place.post("/failed/drop", {"all": True})[1]["count"] == 1
    assert place.client.llen("resque:failed") == 0
    for fields in ({}, {"all": True, "id": ["x"]}, {"all": "maybe"}, {"id": [7]}):
        assert place.post("/failed/drop", fields)[0] == 400


def test_a_running_job_is_stopped(place):
    id = place.submit("stay")
    eventually((place.directory / "started").exists)
    status, answer = place.post(f"/jobs/{id}/stop", {"kill": True})
    assert (status, answer["done"]) == (200, True)
    eventually(lambda: place.pool()["exits"])
    assert place.pool()["exits"][0]["signal"] == "SIGKILL"
    eventually(lambda: place.client.llen("resque:failed") == 1)
    assert place.post(f"/jobs/{id}/stop")[0] == 404


def test_a_pool_is_sized_and_drained(place):
    pool = place.pool()
    status, answer = place.post("/pools/default/size", {"size": 3, "node": pool["node"]})
    assert status == 200
    assert answer["nodes"] == [
        {"node": pool["node"], "done": True, "text": "1 slots before, 3 now"}
    ]
    eventually(lambda: place.pool()["size"] == 3)
    assert place.post("/pools/default/drain")[0] == 200
    place.submit("ok")
    eventually(lambda: place.pool()["resting"] == "draining")
    assert place.client.llen("resque:queue:jobs") == 1
    assert place.post("/pools/default/resume")[0] == 200
    eventually(lambda: place.pool()["exits"])
    assert place.post("/pools/default/restart")[0] == 409
    assert place.post("/pools/nothing/drain")[0] == 404
    assert place.post("/pools/default/drain", {"node": "elsewhere"})[0] == 404
    for size in (-1, 1001, 1.5, "many", None, True, "٣", [[]]):
        assert place.post("/pools/default/size", {"size": size})[0] == 400


def test_residents_are_rolled(tmp_path, daemon, fresh_valkey):
    (tmp_path / "pools.toml").write_text(
        '[[pool]]\nname = "r"\nresident = true\ncommand = ["sleep", "300"]\nsize = 1\n'
    )
    place = Place(
        tmp_path,
        daemon,
        fresh_valkey,
        *("--config", "pools.toml", "--status-credentials", "credentials"),
    )

    def pids():
        pool = next(one for one in place.status()["pools"] if one["name"] == "r")
        return {slot["pid"] for slot in pool["slots"]}

    before = eventually(lambda: {pid for pid in pids() if pid})
    assert place.post("/pools/r/restart")[0] == 200
    eventually(lambda: pids().isdisjoint(before) and all(pids()))
    assert place.post("/pools/r/drain")[0] == 409


def test_without_credentials_it_is_read_only(tmp_path, daemon, fresh_valkey):
    place = Place(tmp_path, daemon, fresh_valkey, "--status-host", "nowhere.example")
    status, answer = place.post("/queues/jobs/pause")
    assert status == 403
    assert "read-only" in answer["text"]
    assert not place.client.exists("queuerelay:gate")


ACTIONS = [
    "/queues/jobs/pause",
    "/queues/jobs/resume",
    "/queues/jobs/jobs",
    "/failed/retry",
    "/failed/drop",
    "/failed/0123/retry",
    "/failed/0123/drop",
    "/pools/default/size",
    "/pools/default/drain",
    "/pools/default/resume",
    "/pools/default/restart",
    "/jobs/0123/stop",
]


def test_the_matrix_of_who_may_not(place):
    here = f"http://127.0.0.1:{place.port}"
    ways = {
        "none": ("POST", {}, 401),
        "none, our page": ("POST", {"Origin": here}, 401),
        "wrong token": ("POST", {"Authorization": "Bearer 00000000000000"}, {401, 429}),
        "cross-site": (
            "POST",
            {"Authorization": BASIC, "Origin": "http://evil.example"},
            403,
        ),
        "cross-site by fetch metadata": (
            "POST",
            {"Authorization": f"Bearer {TOKEN}", "Sec_Fetch_Site": "cross-site", "Origin": here},
            403,
        ),
        "no Origin": ("POST", {"Authorization": BASIC}, 403),
        "null Origin": ("POST", {"Authorization": BASIC, "Origin": "null"}, 403),
        "rebound Host": (
            "POST",
            {"Authorization": f"Bearer {TOKEN}", "Host": "evil.example"},
            403,
        ),
        "GET": ("GET", {"Authorization": f"Bearer {TOKEN}"}, 405),
        "PUT": ("PUT", {"Authorization": f"Bearer {TOKEN}"}, 405),
    }
    before = place.keys()
    for name, (method, headers, expected) in ways.items():
        for path in ACTIONS:
            status, fields, _ = place.ask(method, path, **headers)
            wanted = expected if isinstance(expected, set) else {expected}
            assert status in wanted, (name, path, status)
            if status == 405:
                assert fields["Allow"] == "POST"
            if status == 401:
                assert "Bearer" in fields["WWW-Authenticate"]
    assert place.keys() == before


def test_from_the_page_and_back(place):
    here = f"http://127.0.0.1:{place.port}"
    browser = {
        "Authorization": BASIC,
        "Origin": here,
        "Sec_Fetch_Site": "same-origin",
        "Accept": "text/html,*/*;q=0.8",
        "Content_Type": "application/x-www-form-urlencoded",
    }
    status, fields, _ = place.ask("POST", "/queues/jobs/pause", **browser)
    assert (status, fields["Location"]) == (303, "/?said=paused")
    assert b"The queue is paused." in place.ask("GET", "/?said=paused")[2]
    assert b"said-anything" not in place.ask("GET", "/?said=said-anything")[2]
    status, fields, body = place.ask("POST", "/pools/nothing/drain", **browser)
    assert status == 404
    assert fields.get_content_type() == "text/plain"
    assert body == b"404: no such pool\n"


def test_each_action_leaves_a_line_that_cannot_be_forged(place):
    place.ask("POST", "/queues/jobs/pause", Authorization=f"Bearer {TOKEN}")
    place.ask("POST", "/failed/a%0Ab%1B%5B31m%E2%80%AE/drop", Authorization=f"Bearer {TOKEN}")
    place.ask("POST", "/queues/jobs/resume")
    eventually(lambda: "queues/jobs/resume: 401" in place.daemon.log)
    log = place.daemon.log
    assert "action by deploy from 127.0.0.1: queues/jobs/pause: 200 paused" in log
    assert "action by nobody from 127.0.0.1: queues/jobs/resume: 401" in log
    assert r"failed/a\nb\x1b[31m\u202e/drop" in log
    assert TOKEN not in log


def test_what_a_job_may_be(place):
    for fields in (
        {},
        {"class": ""},
        {"class": "a b"},
        {"class": 7},
        {"class": "J", "args": {}},
        {"class": "J", "args": "x"},
    ):
        assert place.post("/queues/jobs/jobs", fields)[0] == 400
    assert place.post("/queues/a%3Ab/jobs", {"class": "J"})[0] == 400
    assert place.post("/queues/a%20b/pause")[0] == 400
    for body, kind in (
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"\xff=%ff", "application/x-www-form-urlencoded"),
        (b"&".join(b"a=b" for _ in range(2000)), "application/x-www-form-urlencoded"),
        (b"x", "text/plain"),
    ):
        status, _, _ = place.ask(
            *("POST", "/queues/jobs/jobs", body),
            Authorization=f"Bearer {TOKEN}",
            Content_Type=kind,
        )
        assert status == 400
    assert place.client.llen("resque:queue:jobs") == 0


def test_in_a_site_of_ones_own(tmp_path):
    from queuerelay.service import StatusService

    path = tmp_path / "credentials"
    path.write_text(CREDENTIALS)
    path.chmod(0o600)
    for options, writable in (({}, False), ({"status_credentials": str(path)}, True)):
        service = StatusService.with_options(reactor=Clock(), redis="localhost", **options)
        assert service.status.writable is writable


def test_wrong_credentials_file_is_refused_at_start(tmp_path, daemon):
    (tmp_path / "credentials").write_text("nonsense\n")
    one = daemon("--status", f"tcp:{free_port()}", "--status-credentials", "credentials")
    assert one.exit() == 1
    assert len(one.stderr.splitlines()) == 1
    assert "--status-credentials" in one.stderr
