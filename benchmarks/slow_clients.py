"""Slow clients beside good ones: ``python benchmarks/slow_clients.py [--slow N] [--good N]``

Good clients send a request every 100 ms, first alone, then beside as many clients that send their
header section, and as many that send a body, a byte at a time. Each slow one must be answered 408
on time, and the good ones' p99 stay within twice what it was. Exit status 1 where not.
"""

import argparse
import asyncio
import resource
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

from browser import request
from rig import Bench

#: Seconds that the relay gives them; a body must bring a KiB a second.
HEADER_TIME, BODY_TIME = 10.0, 15.0
#: Seconds by which an answer may be late: two looks at the deadlines, and a busy machine.
LATE = 1.5
#: Seconds between two bytes of a slow client, and between two requests of a good one.
DRIP, PACE = 1.0, 0.1
#: Connections that are being opened at a time: less than a listener's backlog.
AT_ONCE = 32

SLOW_HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"a" * 1000
SLOW_BODY = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"


@dataclass(slots=True)
class Slow:
    """How it ended for clients of one kind."""

    #: Seconds from the first byte to the answer.
    seconds: list[float] = field(default_factory=list)
    #: Those that got another answer, or none.
    wrong: int = 0


async def slow(port: int, head: bytes, drip: bytes, into: Slow) -> None:
    """One slow client: `head` at once, then `drip` in single bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    answer = asyncio.ensure_future(reader.read(-1))
    try:
        writer.write(head or drip[:1])
        for byte in drip[1:]:
            done, _ = await asyncio.wait([answer], timeout=DRIP)
            if done:
                break
            writer.write(bytes([byte]))
        if answer.done() and answer.result().startswith(b"HTTP/1.1 408 "):
            into.seconds.append(time.monotonic() - began)
        else:
            into.wrong += 1
    except OSError:
        into.wrong += 1
    finally:
        answer.cancel()
        writer.close()


async def good(port: int, until: float, into: list[float]) -> None:
    """One good client: a request, its answer, a pause."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = request("/things")
    while time.monotonic() < until:
        began = time.monotonic()
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        await reader.readexactly(int(fields[b"content-length"]))
        into.append(time.monotonic() - began)
        await asyncio.sleep(PACE)
    writer.close()


async def load(port: int, count: int, seconds: float) -> list[float]:
    """Seconds that each request of `count` good clients took."""
    into: list[float] = []
    until = time.monotonic() + seconds
    clients = []
    for number in range(count):
        clients.append(asyncio.ensure_future(good(port, until, into)))
        await asyncio.sleep(PACE / count if number else 0)
    await asyncio.gather(*clients)
    return into


async def attack(port: int, count: int) -> tuple[Slow, Slow]:
    """`count` slow clients of each kind."""
    heads, bodies = Slow(), Slow()
    clients = []
    for number in range(count):
        clients.append(asyncio.ensure_future(slow(port, b"", SLOW_HEAD, heads)))
        clients.append(asyncio.ensure_future(slow(port, SLOW_BODY, b"x" * 1000, bodies)))
        if number % (AT_ONCE // 2) == 0:
            await asyncio.sleep(0.02)
    await asyncio.gather(*clients)
    return heads, bodies


def p99(seconds: list[float]) -> float:
    """In milliseconds."""
    return quantiles(seconds, n=100)[98] * 1000


async def measure(port: int, slow_count: int, good_count: int) -> bool:
    """Both rounds; gives whether all is as it should be."""
    lasts = BODY_TIME + 2 * LATE
    await load(port, good_count, 2.0)
    # Before and after: what else the machine does meanwhile is in one of them.
    before = await load(port, good_count, lasts / 2)
    (heads, bodies), during = await asyncio.gather(
        attack(port, slow_count), load(port, good_count, lasts)
    )
    after = await load(port, good_count, lasts / 2)
    alone = p99(before + after)
    ok = True
    for name, limit, kind in (("header", HEADER_TIME, heads), ("body", BODY_TIME, bodies)):
        took = kind.seconds or [0.0]
        late = sum(not limit <= one <= limit + LATE for one in kind.seconds)
        ok = ok and not (late or kind.wrong) and len(kind.seconds) == slow_count
        print(
            f"{slow_count} slow {name} clients: {len(kind.seconds)} answered 408 after "
            f"{min(took):.1f} to {max(took):.1f} s (time: {limit:g} s), {late} not on time, "
            f"{kind.wrong} otherwise"
        )
    print(
        f"{good_count} good clients: p99 {alone:.2f} ms alone (before {p99(before):.2f}, after "
        f"{p99(after):.2f}), {p99(during):.2f} ms beside the slow ones: "
        f"{p99(during) / alone:.2f} times, of {len(during)} requests"
    )
    return ok and p99(during) <= 2 * alone


def main() -> None:
    """Start a relay, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slow", type=int, default=500, help="of each kind (default: %(default)s)")
    parser.add_argument("--good", type=int, default=50, help="default: %(default)s")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    directory = tempfile.TemporaryDirectory(prefix="qr-bench-", ignore_cleanup_errors=True)
    with directory as name, ExitStack() as stack:
        bench = Bench(stack, Path(name))
        times = ("--header-time", str(HEADER_TIME), "--body-time", str(BODY_TIME))
        subject = bench.fast(bench.relay("slow", *times))
        ok = asyncio.run(measure(subject.port, options.slow, options.good))
    print("reached" if ok else "NOT REACHED")
    sys.exit(not ok)


if __name__ == "__main__":
    main()
