"""The fixtures of the relay's stage: its site is the HTTP server that is tested here."""

from tests.unit.relay.conftest import log_lines, make_stage, stage

__all__ = ["log_lines", "make_stage", "stage"]
