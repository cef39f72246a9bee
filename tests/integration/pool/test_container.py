"""A daemon that is process 1, as in a container."""

import os
import shutil
import signal
import subprocess

import pytest

from tests.helpers.daemon import ROOT, TWISTD
from tests.helpers.processes import alive, children
from tests.helpers.waiting import eventually
from tests.integration.pool.place import Place


def zombies(parent: int) -> set[int]:
    found = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as file:
                state, its_parent = file.read().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(its_parent) == parent:
            found.add(int(entry))
    return found


def test_orphans_are_reaped_and_no_exit_is_stolen(place: Place) -> None:
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "true"], check=False).returncode
    ):
        pytest.skip("process namespaces need root")
    place.script(
        "a.sh",
        """
        #!/bin/sh
        cat > /dev/null
        ( ( sleep 0.1 ) & ) > /dev/null 2>&1 < /dev/null
        exit 3
        """,
    )
    log = place.directory / "container"
    options = [
        "--redis",
        place.server.url,
        "--role",
        "pool",
        "--worker",
        "./a.sh",
        "--workers",
        "4",
    ]
    with log.open("wb") as out:
        outer = subprocess.Popen(
            [*unshare, *TWISTD, *options, "--worker-queues", "mp3"],
            cwd=place.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=out,
            stderr=out,
        )
    try:
        inner = eventually(lambda: next(iter(children(outer.pid)), None))
        for number in range(40):
            place.job(str(number))
        eventually(lambda: len(place.failed) == 40, lambda: log.read_text()[-2000:])
        # Each has its own exit status, and nothing is left.
        assert {entry["queuerelay"]["attempts"][0]["exit"] for entry in place.failed} == {3}
        eventually(lambda: not zombies(inner))
        assert "reaped by someone else" not in log.read_text()
        os.kill(inner, signal.SIGTERM)
        eventually(lambda: not alive(inner))
    finally:
        outer.kill()
        outer.wait()
