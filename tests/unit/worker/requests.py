"""Request messages for the tests of the worker."""

from typing import Any

from queuerelay.wire.message import Request

NODE_ID = "3f9c21aa-" + "0" * 32


def request(**fields: Any) -> Request:
    """A plain GET, with `fields` of its own."""
    defaults: dict[str, Any] = {
        "node_id": NODE_ID,
        "url": "/",
        "method": "GET",
        "http_version": "1.1",
        "headers": [("host", "example.org")],
        "body": b"",
        "remote_addr": "203.0.113.5",
        "scheme": "http",
        "reply_to": "queuerelay:inbox:3f9c21aa",
        "accepted_at": 1000.0,
        "deadline": 1060.0,
    }
    return Request(**{**defaults, **fields})
