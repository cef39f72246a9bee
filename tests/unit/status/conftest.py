"""The fixtures of `stage` for every test in this folder."""

from tests.unit.status.stage import make_stage, stage

__all__ = ["make_stage", "stage"]
