"""Orders and reports on the wire."""

import json

import pytest

from queuerelay.errors import MessageError
from queuerelay.wire.order import (
    ACTIONS,
    MOST_SLOTS,
    Order,
    Report,
    decode_order,
    decode_report,
    encode_order,
    encode_report,
)

ID = "0123456789abcdef" * 2


@pytest.mark.parametrize("action", ACTIONS)
def test_there_and_back(action):
    order = Order(id=ID, action=action, pool="p", size=7, message="m", kill=True)
    assert decode_order(encode_order(order)) == order
    report = Report(node="n", done=True, text="è")
    assert decode_report(encode_report(report)) == report


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"id": None}, "id"),
        ({"id": "short"}, "id"),
        ({"id": "/" * 32}, "id"),
        ({"action": "exec"}, "action"),
        ({"action": None}, "action"),
        ({"size": -1}, "size"),
        ({"size": MOST_SLOTS + 1}, "size"),
        ({"size": 1.5}, "size"),
        ({"size": True}, "size"),
        ({"pool": 1}, "pool"),
        ({"message": []}, "message"),
    ],
)
def test_what_is_no_order_is_refused(change, named):
    value = {"id": ID, "action": "size", "pool": "p", "size": 1, **change}
    with pytest.raises(MessageError, match=named):
        decode_order(json.dumps(value).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff", b"7", b"{}"])
def test_what_is_no_object(raw):
    for decode in (decode_order, decode_report):
        with pytest.raises(MessageError):
            decode(raw)


def test_only_true_kills_and_only_true_is_done():
    raw = json.dumps({"id": ID, "action": "stop", "message": "m", "kill": "yes"}).encode()
    assert decode_order(raw).kill is False
    assert decode_report(b'{"node":"n","done":1,"text":"%b"}' % (b"x" * 999)) == Report(
        node="n", done=False, text="x" * 200
    )
