"""Processes whose wall clock a test sets: their ``time.time()`` alone, as a step of NTP does."""

import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Runs in each Python that has it on its path, before anything asks for the time.
_SITE = """
    import os, time

    real, name = time.time, os.environ.get("STEP_FILE", "")

    def stepped():
        with open(name) as file:
            return real() + float(file.read() or 0)

    if name:
        time.time = stepped
"""


class WallClock:
    """The wall clock of the processes that have `env`."""

    def __init__(self, directory: Path, name: str) -> None:
        self._file = directory / f"step-{name}"
        site = directory / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(textwrap.dedent(_SITE))
        self.env = {"STEP_FILE": str(self._file), "PYTHONPATH": f"{site}:{ROOT}"}
        self.step(0)

    def step(self, seconds: float) -> None:
        """The clock is `seconds` ahead of the true time from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)
