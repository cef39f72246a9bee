"""The fixtures of `stage` for every test in this folder, and what was logged."""

from tests.unit.relay.conftest import log_lines
from tests.unit.status.stage import make_stage, stage

__all__ = ["log_lines", "make_stage", "stage"]
