"""Directories of tests."""

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
