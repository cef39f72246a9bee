"""Many clients that wait. ``python holders.py PORT COUNT SECONDS``

Opens COUNT connections and says ``connected``; at a line on stdin sends one request on each and
says ``sent``; then waits until all are answered, at most SECONDS, and says as JSON how many got
exactly their own answer (the target of their request), another one, or none.
"""

import asyncio
import json
import resource
import sys
from functools import partial

from browser import request

#: Connections that are being opened at a time: less than a listener's backlog.
AT_ONCE = 32


class Holder(asyncio.Protocol):
    """One client."""

    def __init__(self, number: int) -> None:
        self.target = f"/held/{number}"
        self.answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self) -> None:
        """Send the request."""
        assert self._transport is not None
        self._transport.write(request(self.target))

    def data_received(self, data: bytes) -> None:
        """A part of the answer."""
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) >= int(fields[b"content-length"]) and not self.answered.done():
            right = head.startswith(b"HTTP/1.1 200 ") and body == self.target.encode()
            self.answered.set_result("right" if right else "wrong")

    def connection_lost(self, reason: Exception | None) -> None:
        """The relay has closed the connection."""
        if not self.answered.done():
            self.answered.set_result("lost")


async def main(port: int, count: int, seconds: float) -> None:
    """All of it."""
    loop = asyncio.get_running_loop()
    holders: list[Holder] = []
    while len(holders) < count:
        made = await asyncio.gather(
            *(
                loop.create_connection(partial(Holder, number), "127.0.0.1", port)
                for number in range(len(holders), min(count, len(holders) + AT_ONCE))
            )
        )
        holders += [holder for _, holder in made]
    print("connected", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    for start in range(0, count, AT_ONCE):
        for holder in holders[start : start + AT_ONCE]:
            holder.send()
        await asyncio.sleep(0)
    print("sent", flush=True)
    await asyncio.wait([holder.answered for holder in holders], timeout=seconds)
    ends = [
        holder.answered.result() if holder.answered.done() else "unanswered" for holder in holders
    ]
    names = ("right", "wrong", "lost", "unanswered")
    print(json.dumps({name: ends.count(name) for name in names}), flush=True)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
