"""Promise 1 under load: many clients, workers that do everything wrong that can be done."""

import asyncio
import json
import random
from collections import Counter
from io import BytesIO

from queuerelay.wire.reply import encode_reply
from tests.helpers.strict import read, request
from tests.helpers.waiting import PATIENCE, eventually

CLIENTS = 300
REQUESTS = 10


async def client(port: int, number: int, seen: Counter[int]) -> None:
    """Sends its requests one after another, and takes nothing for an answer that is not its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for turn in range(REQUESTS):
            # Some methods may be pushed again and some may not; some leave the body out.
            method = ("GET", "POST", "HEAD", "PUT")[(number + turn) % 4]
            mark = f"{number}-{turn}"
            writer.write(request(method, f"/{mark}", ("X-Request-Id", mark)))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
            length = 0
            if method != "HEAD" and b"Content-Length: " in head:
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
            body = await asyncio.wait_for(reader.readexactly(length), PATIENCE)
            response = read(BytesIO(head + body), method)
            seen[response.status] += 1
            assert response.get("x-request-id") == mark.encode()
            if response.status == 200:
                assert response.get("x-mark") == mark.encode()
                assert method == "HEAD" or response.body == mark.encode()
            else:
                # An honest error: the worker's garbage, or its silence.
                assert response.status in (502, 504)
        writer.write_eof()
        # Exactly one response each: nothing follows.
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
    finally:
        writer.close()
        await writer.wait_closed()


def work(redis, stop, did: Counter[str]) -> None:
    """Takes what there is in large batches, and answers in any order and any way."""
    chance = random.Random(7)
    late: list[tuple[str, bytes]] = []
    while not stop.is_set():
        raw = redis.lpop("resque:queue:requests", 100) or []
        if not raw:
            redis.blmove("resque:queue:requests", "resque:queue:requests", 0.05, "LEFT", "LEFT")
            continue
        replies: list[tuple[str, bytes]] = []
        for one in raw:
            taken = json.loads(one)["args"][0]
            id, to, mark = taken["node_id"], taken["reply_to"], taken["url"][1:]
            good = encode_reply(node_id=id, headers=[("x-mark", mark)], body=mark.encode())
            kind = chance.choices(
                ["good", "twice", "garbage", "late", "unknown", "bad status"], [60, 10, 5, 5, 10, 5]
            )[0]
            did[kind] += 1
            if kind == "late":
                late.append((to, good))
            elif kind == "bad status":
                replies.append((to, b'{"node_id": "%b", "status": "OK"}' % id.encode()))
            else:
                replies += [(to, good)] * (2 if kind == "twice" else 1)
            if kind == "garbage":
                replies.append((to, good[: len(good) // 3] if chance.random() < 0.5 else b"\xff"))
            if kind == "unknown":
                stranger = f"{id[:8]}-{chance.randbytes(16).hex()}"
                replies.append((to, encode_reply(node_id=stranger, body=b"a stranger's")))
        if len(late) > 20:
            replies += late
            late.clear()
        chance.shuffle(replies)
        pipe = redis.pipeline(transaction=False)
        for to, reply in replies:
            pipe.rpush(to, reply)
        pipe.execute()
    for to, reply in late:
        redis.rpush(to, reply)


# Promise 1, Promise 2
def test_promise_1_under_load_each_client_gets_its_own_answer_once(relay, fresh_valkey):
    one = relay("--deadline", "3")
    seen: Counter[int] = Counter()
    did: Counter[str] = Counter()

    async def run() -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(asyncio.to_thread(work, fresh_valkey.client(), stop, did))
        try:
            async with asyncio.TaskGroup() as clients:
                for number in range(CLIENTS):
                    clients.create_task(client(one.port, number, seen))
        finally:
            stop.set()
            await working

    asyncio.run(run())
    assert seen.total() == CLIENTS * REQUESTS
    assert seen[200] > 0.8 * CLIENTS * REQUESTS
    # Every way to do it wrong was taken, so that the test has tested something.
    assert all(did[kind] for kind in ("twice", "garbage", "late", "unknown", "bad status"))
    assert seen[502] >= did["bad status"] > 0
    # Nothing is held, nothing waits: the relay says so on its own node.
    client_ = fresh_valkey.client()
    assert client_.llen("resque:queue:requests") == 0

    def told() -> dict[str, int] | None:
        (node,) = client_.zrange("queuerelay:nodes", 0, -1)
        snapshot = json.loads(client_.get(f"queuerelay:node:{node.decode()}"))
        ended = sum(snapshot["counters"].get(end, 0) for end in ("answered", "refused", "expired"))
        return snapshot["counters"] if ended == CLIENTS * REQUESTS else None

    counters = eventually(told)
    assert counters["answered"] == seen[200]
    assert counters["replies_doubled"] > 0
    assert counters["replies_unknown"] > 0
    assert counters["replies_undecodable"] > 0
