"""Pools on a real server, and what they leave there."""

import json
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from queuerelay.broker.redis.broker import RedisBroker
from queuerelay.config import PoolConfig
from queuerelay.pool.pool import Pool
from queuerelay.pool.runtime import Runtime
from queuerelay.pool.stopping import Stopping
from queuerelay.processes.spawner import Spawner
from queuerelay.wire import url
from queuerelay.wire.keys import Keys
from queuerelay.wire.message import encode_request
from tests.helpers.waiting import until

KEYS = Keys()
#: Of jobs.
REPLY_TO = f"{KEYS.results}mine"


class Bench:
    """Pools on one server, and a blocking client for the back door."""

    def __init__(self, server: Any, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.spawner = Spawner(reactor=reactor)
        self.pools: list[tuple[Pool, RedisBroker]] = []

    @property
    def client(self) -> Any:
        return self.server.client()

    def script(self, body: str, name: str = "script", *, interpreter: object = "/bin/sh") -> str:
        """A shell script."""
        path = self.folder / name
        path.write_text(f"#!{interpreter}\n{textwrap.dedent(body)}\n")
        path.chmod(0o755)
        return str(path)

    def python(self, body: str, name: str = "script.py") -> str:
        path = self.folder / name
        path.write_text(f"#!{sys.executable} -ES\n{textwrap.dedent(body)}\n")
        path.chmod(0o755)
        return str(path)

    async def pool(self, *command: str, **options: Any) -> Pool:
        """One that is at work."""
        size = options.get("size", 1)
        given = {"name": "p", "queues": ("q",), "min": size, "max": size, **options}
        broker = RedisBroker(url.parse(self.server.url), reactor=reactor)
        pool = Pool(
            PoolConfig(command=command, **given),
            Runtime(
                broker=broker,
                processes=self.spawner,
                clock=reactor,
                wall_clock=time.time,
                holder=f"host:{len(self.pools) + 1}",
                stopping=Stopping(reactor),
            ),
        )
        broker.start()
        pool.start()
        self.pools.append((pool, broker))
        await broker.when_up()
        return pool

    def push(self, message: bytes, queue: str = "q") -> None:
        self.client.rpush(KEYS.queue(queue), message)

    def job(self, name: str = "1", queue: str = "q", **more: Any) -> bytes:
        message = json.dumps({"class": "Job", "args": [{"name": name, **more}], "id": name})
        self.push(message.encode(), queue)
        return message.encode()

    def request(self, name: str = "r", **more: Any) -> None:
        fields: dict[str, Any] = {
            "queue": "q",
            "node_id": name,
            "url": "/app/a%20b?x=1",
            "method": "GET",
            "http_version": "1.1",
            "headers": [("host", "example.org"), ("x-one", "1")],
            "body": b"",
            "remote_addr": "192.0.2.1",
            "scheme": "http",
            "reply_to": KEYS.inbox(name.partition("-")[0]),
            "accepted_at": time.time(),
            "deadline": time.time() + 60.0,
        }
        self.push(encode_request(**{**fields, **more}))

    @property
    def failed(self) -> list[dict[str, Any]]:
        return [json.loads(one) for one in self.client.lrange(KEYS.failed, 0, -1)]

    @property
    def replies(self) -> list[dict[str, Any]]:
        """Of requests and of jobs, list by list."""
        names = [REPLY_TO, *sorted(self.client.keys(KEYS.inbox("*")))]
        return [json.loads(one) for name in names for one in self.client.lrange(name, 0, -1)]

    def waiting(self, queue: str = "q") -> list[bytes]:
        return self.client.lrange(KEYS.queue(queue), 0, -1)

    def inflight(self, queue: str = "q") -> list[bytes]:
        return self.client.hvals(KEYS.inflight(queue))

    def delayed(self, queue: str = "q") -> int:
        return self.client.zcard(KEYS.delayed(queue))

    async def until(self, holds: Callable[[], Any]) -> Any:
        """What `holds()` gives, once it is true."""
        return await until(holds)

    async def idle(self) -> None:
        """Until all messages have come to an end."""
        await self.until(
            lambda: (
                not (self.waiting() or self.inflight() or self.delayed())
                and not any(pool.busy for pool, _ in self.pools)
            )
        )

    async def stop(self) -> None:
        for pool, broker in self.pools:
            await pool.stop()
            await broker.stop()
        self.pools.clear()
        await self.until(lambda: not self.spawner.alive)
        await self.spawner.stop()
