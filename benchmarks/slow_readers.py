"""Slow readers of a large answer: ``python benchmarks/slow_readers.py [--size MB] [--rate KB]``

On kept-alive connections one client reads at a constant rate, another one nothing at all, and one
gets the same answer as a stream. The slow ones must get all of it, and another answer after it on
the same connection; the other must be cut off after the stall time. Exit status 1 where not.
"""

import argparse
import json
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from browser import request
from rig import Bench

from queuerelay.wire.reply import encode_frame, encode_reply

#: Seconds after which the relay cuts off who takes nothing, its default.
STALL = 60.0
#: Seconds by which it may be late: a twelfth of it and a look, and a busy machine.
LATE = 7.0
#: Seconds between two reads.
PACE = 0.05


class Reader:
    """One client; `rate` in bytes a second, 0 for one that reads nothing."""

    def __init__(self, port: int, rate: int) -> None:
        self.rate = rate
        self.received = bytearray()
        #: Seconds until the answer was complete, or the connection cut off.
        self.seconds = 0.0
        self.cut_off = False
        self._socket = socket.create_connection(("127.0.0.1", port), 30.0)
        self._socket.sendall(request("/things"))

    def read(self, size: int) -> None:
        """Read until `size` bytes have come."""
        began = time.monotonic()
        while len(self.received) < size and time.monotonic() - began < 1000:
            behind = (time.monotonic() - began) * self.rate - len(self.received)
            if behind >= 1:
                part = self._socket.recv(int(behind))
                self.received += part
                if not part:
                    break
            time.sleep(PACE)
        self.seconds = time.monotonic() - began

    def stall(self, bound: float) -> None:
        """Read nothing, and see when the connection is cut off."""
        began = time.monotonic()
        while time.monotonic() - began < bound and not self.cut_off:
            # Nothing is read by this: only an error shows.
            self.cut_off = bool(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            time.sleep(PACE)
        self.seconds = time.monotonic() - began

    def again(self) -> bool:
        """Whether the connection is good for another request."""
        self._socket.sendall(request("/more"))
        self.received.clear()
        while b"again" not in self.received:
            part = self._socket.recv(65536)
            if not part:
                return False
            self.received += part
        return True


class Worker:
    """Answers with `body`, as a whole or in frames of 256 KiB."""

    def __init__(self, bench: Bench, queue: str, body: bytes) -> None:
        self._redis = bench.redis
        self._queue = f"resque:queue:{queue}"
        self._body = body

    def take(self) -> dict[str, str]:
        """The next request."""
        found = self._redis.blpop([self._queue], 30)
        assert found is not None
        taken: dict[str, str] = json.loads(found[1])["args"][0]
        return taken

    def answer(self, body: bytes) -> None:
        """Take a request, and answer it as a whole."""
        taken = self.take()
        self._redis.rpush(taken["reply_to"], encode_reply(node_id=taken["node_id"], body=body))

    def stream(self) -> None:
        """Take a request, and stream, at most 512 KiB ahead of the client."""
        taken = self.take()
        id, inbox, sent = taken["node_id"], taken["reply_to"], 0
        headers = [("content-length", str(len(self._body)))]
        self._redis.rpush(inbox, encode_reply(node_id=id, headers=headers, more=True))
        while sent < len(self._body):
            part = self._body[sent : sent + 256 * 1024]
            sent += len(part)
            more = sent < len(self._body)
            self._redis.rpush(inbox, encode_frame(node_id=id, body=part, more=more))
            while more and sent - int(self._redis.get(f"queuerelay:taken:{id}") or 0) > 512 * 1024:
                time.sleep(0.02)


def measure(bench: Bench, size: int, rate: int) -> bool:
    """All of it; gives whether it is as it should be."""
    body = bytes(range(256)) * (size // 256)
    subject = bench.relay("readers")
    worker = Worker(bench, "readers", body)
    readers = []
    for kind in ("stream", "stalled", "slow"):
        reader = Reader(subject.port, 0 if kind == "stalled" else rate)
        readers.append(reader)
        if kind == "stream":
            threading.Thread(target=worker.stream, daemon=True).start()
            time.sleep(1.0)
        else:
            worker.answer(body)
    stream, stalled, slow = readers
    threads = [
        threading.Thread(target=stream.read, args=(size,)),
        threading.Thread(target=slow.read, args=(size,)),
        threading.Thread(target=stalled.stall, args=(STALL + 3 * LATE,)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ok = True
    for name, reader in (("slow", slow), ("streamed", stream)):
        whole = body[-1000:] in reader.received
        threading.Thread(target=worker.answer, args=(b"again",), daemon=True).start()
        again = whole and reader.again()
        ok = ok and whole and again
        print(
            f"{size / 1e6:.0f} MB, {name}, at {rate / 1e3:.0f} kB/s: "
            f"{'complete' if whole else 'NOT COMPLETE'} after {reader.seconds:.1f} s, the next "
            f"answer on the same connection {'came' if again else 'DID NOT COME'}"
        )
    ok = ok and stalled.cut_off and STALL <= stalled.seconds <= STALL + LATE
    print(
        f"one that reads nothing: {'cut off' if stalled.cut_off else 'NOT CUT OFF'} "
        f"after {stalled.seconds:.1f} s (stall time {STALL:g} s)"
    )
    return ok


def main() -> None:
    """Start a relay, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=20.0, help="MB (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=200.0, help="kB/s (default: %(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = tempfile.TemporaryDirectory(prefix="qr-bench-", ignore_cleanup_errors=True)
    with directory as name, ExitStack() as stack:
        bench = Bench(stack, Path(name))
        ok = measure(bench, round(options.size * 1e6), round(options.rate * 1e3))
    print("reached" if ok else "NOT REACHED")
    sys.exit(not ok)


if __name__ == "__main__":
    main()
