"""Directories of tests, and a disk that is full."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory with a path short enough for a socket's in it (103 bytes), as `tmp_path` may not
    be.
    """
    with tempfile.TemporaryDirectory(prefix="qr-") as path:
        yield Path(path)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[str]:
    """A device that is always full; at the end it is still there, whatever happened to it.

    Root gets one of its own: nobody else can do anything to that of all.
    """
    path = tmp_path / "full"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        path.open("ab").close()
    except OSError:
        path = Path("/dev/full")
    yield str(path)
    assert stat.S_ISCHR(path.stat().st_mode)
