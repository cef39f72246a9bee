"""The stages of the acceptance tests."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.stage import NODE, Stage, staged
from tests.helpers.redis import ValkeyServer

#: Seconds that `npm ci` may take.
NPM_BOUND = 300


@pytest.fixture
def stage(valkey: ValkeyServer, tmp_path: Path) -> Iterator[Stage]:
    """An empty stage on an empty server, for one test."""
    with staged(valkey, tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def node_modules() -> None:
    """Node.js with the packages of the lock file, which `npm ci` installs here if need be."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program} on PATH")
    if _installed():
        return
    ended = subprocess.run(
        ["npm", "ci"],
        cwd=NODE,
        env={**os.environ, "CI": "true"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=NPM_BOUND,
        check=False,
    )
    if ended.returncode:
        pytest.skip(f"needs the packages of {NODE.name}/package-lock.json: {ended.stderr[-500:]}")


def _installed() -> bool:
    """Whether node_modules is what the lock file says."""
    try:
        locked = json.loads((NODE / "package-lock.json").read_text())["packages"]
        there = json.loads((NODE / "node_modules" / ".package-lock.json").read_text())["packages"]
    except OSError:
        return False
    return {name: one["version"] for name, one in locked.items() if name} == {
        name: one["version"] for name, one in there.items()
    }
