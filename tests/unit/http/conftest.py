"""The fixtures of the relay's stage: its site is the HTTP server that is tested here."""

from tests.unit.relay.conftest import make_stage, stage

__all__ = ["make_stage", "stage"]
