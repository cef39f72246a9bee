import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.config import Route
from queuerelay.relay.routes import Routes

DEFAULT = ("requests", 60.0)


def choose(*routes, method="GET", target="/", host="example.org", headers=()):
    return Routes(routes, *DEFAULT).choose(method, target, host, headers)


@given(st.text(), st.text(), st.text(), st.lists(st.tuples(st.text(), st.text())))
def test_without_routes_everything_goes_to_the_default(method, target, host, headers):
    assert Routes((), *DEFAULT).choose(method, target, host, headers) == DEFAULT


@given(st.text(), st.text(), st.text(), st.lists(st.tuples(st.text(), st.text())))
def test_any_request_gets_a_choice(method, target, host, headers):
    route = Route(queue="q", path="/a", method="GET", host="b", header="c: d")
    assert choose(route, method=method, target=target, host=host, headers=headers) in {
        DEFAULT,
        ("q", 60.0),
    }


def test_first_match_wins():
    routes = [
        Route(path="/a/b", queue="one", deadline=1.0),
        Route(path="/a", queue="two"),
        Route(path="/a/b/c", queue="never"),
    ]
    assert choose(*routes, target="/a/b/c") == ("one", 1.0)
    assert choose(*routes, target="/a/c") == ("two", 60.0)
    assert choose(*routes, target="/b") == DEFAULT


@pytest.mark.parametrize(
    ("target", "matches"),
    [
        ("/shop/", True),
        ("/shop/a?b=c", True),
        ("/shop", False),
        ("/shop?/", False),
        ("/?/shop/", False),
        ("//shop/", False),
        ("/SHOP/", False),
        ("http://example.org/shop/a", True),
        ("https://user@example.org:8443/shop/", True),
        ("http://example.org?/shop/", False),
        ("http://example.org", False),
        ("http://shop/", False),
        ("*", False),
        ("shop/:80", False),
        ("", False),
    ],
)
def test_path_is_a_prefix_of_the_targets_path(target, matches):
    route = Route(path="/shop/", queue="q")
    assert (choose(route, target=target) == ("q", 60.0)) is matches


def test_root_matches_every_path_and_nothing_else():
    root = Route(path="/", queue="q")
    assert choose(root, target="/anything") == ("q", 60.0)
    assert choose(root, target="http://example.org") == ("q", 60.0)
    assert choose(root, target="*", method="OPTIONS") == DEFAULT


def test_method_is_case_sensitive():
    route = Route(method="POST", queue="q")
    assert choose(route, method="POST") == ("q", 60.0)
    assert choose(route, method="post") == DEFAULT


@pytest.mark.parametrize(
    ("configured", "host", "matches"),
    [
        ("example.org", "example.org", True),
        ("example.org", "EXAMPLE.org:8000", True),
        ("Example.ORG", "example.org:", True),
        ("example.org", "www.example.org", False),
        ("example.org", "", False),
        ("example.org", "example.org:port", False),
        ("::1", "[::1]", True),
        ("::1", "[::1]:8000", True),
        ("[::1]", "[::1]:8000", True),
        ("::1", "[::2]:8000", False),
        ("127.0.0.1", "127.0.0.1:80", True),
    ],
)
def test_host_without_port_in_any_case(configured, host, matches):
    route = Route(host=configured, queue="q")
    assert (choose(route, host=host) == ("q", 60.0)) is matches


@pytest.mark.parametrize(
    ("configured", "headers", "matches"),
    [
        ("X-Fast", [("x-fast", "")], True),
        ("x-fast", [("a", "b"), ("x-fast", "no")], True),
        ("X-Fast", [("x-faster", "1")], False),
        ("X-Fast", [], False),
        ("X-Fast: yes", [("x-fast", "yes")], True),
        ("X-Fast:yes", [("x-fast", "yes")], True),
        ("X-Fast: yes", [("x-fast", "no"), ("x-fast", "yes")], True),
        ("X-Fast: yes", [("x-fast", "Yes")], False),
        ("X-Fast: a: b", [("x-fast", "a: b")], True),
    ],
)
def test_header_is_there_or_has_the_value(configured, headers, matches):
    route = Route(header=configured, queue="q")
    assert (choose(route, headers=headers) == ("q", 60.0)) is matches


def test_all_conditions_must_hold():
    route = Route(path="/a", method="PUT", host="h", header="x", queue="q", deadline=0.5)
    request = {"target": "/a", "method": "PUT", "host": "h", "headers": [("x", "")]}
    assert choose(route, **request) == ("q", 0.5)
    for part, other in [("target", "/"), ("method", "GET"), ("host", "i"), ("headers", [])]:
        assert choose(route, **{**request, part: other}) == DEFAULT
