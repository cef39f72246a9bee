"""A real master with a replica, and Sentinels that watch them."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.helpers.ports import free_port
from tests.helpers.redis import ValkeyServer, binary
from tests.helpers.waiting import eventually

NAME = "mymaster"
#: Milliseconds of silence after which a Sentinel believes that a server is down.
DOWN_AFTER = 500


class Sentinel:
    """One Sentinel in a child process."""

    def __init__(self, program: str, master: int, quorum: int, *config: str) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="qr-sentinel-"))
        self.port = free_port()
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.dir}",
            f"logfile {self.dir / 'log'}",
            f"sentinel monitor {NAME} 127.0.0.1 {master} {quorum}",
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER}",
            f"sentinel failover-timeout {NAME} 3000",
            *config,
        ]
        path = self.dir / "sentinel.conf"
        path.write_text("\n".join(lines) + "\n")
        self._process = subprocess.Popen(
            [program, str(path), "--sentinel"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        password = dict(line.split(" ", 1) for line in config).get("requirepass")
        self.client = redis.Redis(port=self.port, password=password, socket_timeout=5)

    def master(self) -> int | None:
        """The port of the master, as it believes."""
        try:
            found = self.client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        except redis.RedisError:
            return None
        return int(found[1]) if found else None

    def sees(self, replicas: int, sentinels: int) -> bool:
        """Whether it has found all the others."""
        try:
            (found,) = self.client.sentinel_masters().values()
        except (redis.RedisError, ValueError):
            return False
        return (found["num-slaves"], found["num-other-sentinels"]) == (replicas, sentinels - 1)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        """End it, and remove its files."""
        self.client.close()
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


class Group:
    """A master, replicas of it, and Sentinels."""

    def __init__(self, start: Callable[..., ValkeyServer], replicas: int = 1) -> None:
        keep = ("--repl-diskless-sync-delay", "0", "--appendonly", "yes")
        self.master = start(*keep)
        self.replicas = [
            start(*keep, "--replicaof", "127.0.0.1", str(self.master.port)) for _ in range(replicas)
        ]
        eventually(lambda: all(self._synced(one) for one in self.replicas))
        self.sentinels: list[Sentinel] = []

    @staticmethod
    def _synced(replica: ValkeyServer) -> bool:
        return bool(replica.client().info("replication")["master_link_status"] == "up")

    @property
    def servers(self) -> list[ValkeyServer]:
        """All of them, the first master first."""
        return [self.master, *self.replicas]

    def watch(self, count: int = 3, *config: str) -> None:
        """Start Sentinels, and wait until they know everybody."""
        program = binary()
        assert program is not None
        for _ in range(count):
            self.sentinels.append(Sentinel(program, self.master.port, count // 2 + 1, *config))
        eventually(lambda: all(one.sees(len(self.replicas), count) for one in self.sentinels))

    @property
    def url(self) -> str:
        """By its Sentinels."""
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"sentinel://{hosts}/{NAME}"

    @property
    def list_url(self) -> str:
        """By its servers."""
        return "redis://" + ",".join(f"127.0.0.1:{one.port}" for one in self.servers) + "/0"

    def elected(self, old: ValkeyServer) -> ValkeyServer:
        """The new master, once all living Sentinels name it and it says so itself."""
        others = {one.port: one for one in self.servers if one is not old}

        def found() -> ValkeyServer | None:
            named = {one.master() for one in self.sentinels if one.master() is not None}
            new = others.get(named.pop()) if len(named) == 1 else None
            if new is None or new.client().role()[0] != b"master":
                return None
            return new

        return eventually(found)  # type: ignore[return-value]

    def remove(self) -> None:
        """End the Sentinels; the servers are the fixture's."""
        for one in self.sentinels:
            one.remove()


@pytest.fixture
def group(own_valkey: Callable[..., ValkeyServer]) -> Iterator[Callable[..., Group]]:
    """Starts a master with replicas: ``group(replicas=2)``; `Group.watch` adds Sentinels."""
    groups: list[Group] = []

    def start(replicas: int = 1) -> Group:
        groups.append(Group(own_valkey, replicas))
        return groups[-1]

    yield start
    for one in groups:
        one.remove()
