"""Who takes how much, by itself and in a relay that is full."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.http.shares import Shares, client_of
from tests.helpers.strict import request
from tests.unit.relay.stage import Connection, FakeClient

A, B = "192.0.2.1", "192.0.2.2"


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("unknown:x", "unknown:x"),
    ],
)
def test_a_client_is_an_address_of_ipv6_its_network(address, client):
    assert client_of(address) == client


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 30))))
def test_the_heaviest_gives_and_nothing_is_left_behind(steps):
    shares, kept = Shares(25), {}
    for client, item, weight in steps:
        if (client, item) in kept:
            shares.remove(client, (client, item))
            del kept[client, item]
        else:
            shares.add(client, (client, item), weight)
            kept[client, item] = weight
        totals = Counter()
        for (name, _), each in kept.items():
            totals[name] += each
        found = shares.newest_of_heaviest("new", 0)
        if found is None:
            assert max(totals.values(), default=0) <= 25
        else:
            assert totals[found[0]] == max(totals.values()) > 25
            assert found == [one for one in kept if one[0] == found[0]][-1]
            assert shares.newest_of_heaviest(found[0], 0) is None or (
                [*totals.values()].count(totals[found[0]]) > 1
            )
    for client, item in kept:
        shares.remove(client, (client, item))
    assert not len(shares)
    assert shares.newest_of_heaviest("new", 0) is None


def hold(stage, address, **fields):
    client = FakeClient()
    stage.hold(client, remote_addr=address, **fields)
    stage.turn()
    return client


def test_promise_6_a_full_relay_takes_others_in_for_the_newest_of_who_has_most(make_stage):
    stage = make_stage(max_held=4)
    many = [hold(stage, A, url=f"/{number}") for number in range(4)]
    # While there was room nobody was refused.
    assert [client.status for client in many] == [None] * 4
    other = hold(stage, B)
    assert [client.status for client in many] == [None, None, None, 429]
    assert (many[3].told[0].retry_after, other.status) == (5, None)
    # It was taken off the queue, too.
    assert len(stage.waiting()) == 4
    hold(stage, B)
    with pytest.raises(Exception, match="4 requests, the limit") as refused:
        hold(stage, A)
    assert refused.value.status == 429
    # Both have as much now: neither gives way to the other.
    assert [client.status for client in many[:2]] == [None, None]
    assert len(stage.waiting()) == 4


def test_promise_6_bytes_are_shared_as_places_are(make_stage):
    stage = make_stage(max_held_bytes=10_000, max_body=5000)
    large = [hold(stage, A, body=b"x" * 4000) for _ in range(2)]
    other = hold(stage, B, body=b"x" * 3000)
    assert [client.status for client in (*large, other)] == [None, 429, None]


def test_who_is_alone_hears_that_the_relay_is_full(make_stage):
    stage = make_stage(max_held=2)
    for _ in range(2):
        hold(stage, A)
    with pytest.raises(Exception, match="limit") as refused:
        hold(stage, A)
    assert refused.value.status == 503
    assert len(stage.waiting()) == 2


def test_a_share_of_one_is_none(make_stage):
    stage = make_stage(max_held=2, client_share=1.0)
    for _ in range(2):
        hold(stage, A)
    with pytest.raises(Exception, match="limit") as refused:
        hold(stage, B)
    assert refused.value.status == 503


def connect(stage, address):
    connection = Connection(stage, stage.front.buildProtocol(None), client=address)
    stage.connections.append(connection)
    return connection


def test_promise_6_a_new_client_has_a_place_of_who_has_most(make_stage):
    stage = make_stage(max_connections=4, trusted_proxies=("192.0.2.9",))
    asks = connect(stage, A).send(request())
    idle = [connect(stage, A) for _ in range(3)]
    # Neither a head nor a body that never ends helps it.
    idle[1].send(b"GET / HTTP/1.1\r\nA: ")
    idle[2].send(request("POST", "/", ("Content-Length", "9")))
    assert not any(one.raw for one in idle)
    other = connect(stage, B).send(request())
    # Not the one that waits for an answer, nor an older one.
    assert idle[2].response().status == 429
    assert idle[2].response().get("retry-after") == b"5"
    assert not any(one.raw for one in (asks, *idle[:2], other))
    assert connect(stage, A).response().status == 429
    # A proxy's connections are those of many.
    proxied = [connect(stage, "192.0.2.9") for _ in range(5)]
    assert [bool(one.raw) for one in proxied] == [False, False, True, True, True]
    assert {one.response().status for one in proxied[2:]} == {503}
    for one in stage.connections:
        one.leave()
    assert not len(stage.front.connections._shares)
