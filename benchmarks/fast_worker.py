"""A worker that costs next to nothing, so that the relay is what is measured.

``python fast_worker.py SOCKET QUEUE``: takes all messages that there are, answers them in one
write with its next pop, and does nothing else. Stock Resque semantics: what it has popped is lost
when it dies. The answer is the request's target.
"""

import signal
import socket
import sys
from typing import Any

import hiredis
import orjson

#: Most messages of one turn.
BATCH = 256
#: Seconds that an idle pop waits.
WAIT = 5
HEADERS = [["content-type", "text/plain; charset=utf-8"]]


def pack(*command: str | bytes | int) -> bytes:
    """A command as Redis reads it."""
    # Its stub wants tuples of one.
    return bytes(hiredis.pack_command(command))  # type: ignore[arg-type]


def answer(message: bytes) -> tuple[str, bytes]:
    """The reply to one message, and the list that it goes to."""
    request = orjson.loads(message)["args"][0]
    reply = {
        "node_id": request["node_id"],
        "status": 200,
        "headers": HEADERS,
        "body": request["url"],
    }
    return request["reply_to"], orjson.dumps(reply)


def serve(path: str, queue: str) -> None:
    """Answer until the connection or the process ends."""
    server = socket.socket(socket.AF_UNIX)
    server.settimeout(WAIT + 10)
    server.connect(path)
    reader = hiredis.Reader()
    key = f"resque:queue:{queue}"
    # The first message may have to be waited for; the others are there or not.
    pop = pack("BLPOP", key, WAIT)
    pop += pack("LPOP", key, BATCH - 1)
    pushes: list[bytes] = []
    while True:
        server.sendall(b"".join(pushes) + pop)
        answers: list[Any] = []
        while len(answers) < len(pushes) + 2:
            got = reader.gets()
            if got is False:
                data = server.recv(1 << 20)
                if not data:
                    return
                reader.feed(data)
            elif isinstance(got, Exception):
                raise got
            else:
                answers.append(got)
        first, rest = answers[-2:]
        lists: dict[str, list[bytes]] = {}
        for message in [*(first or ())[1:], *(rest or ())]:
            reply_to, reply = answer(message)
            lists.setdefault(reply_to, []).append(reply)
        pushes = [pack("RPUSH", to, *replies) for to, replies in lists.items()]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve(sys.argv[1], sys.argv[2])
