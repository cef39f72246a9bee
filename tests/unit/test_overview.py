"""The overview of a listener that lies: every field that it may fill is foreign text."""

from typing import Any

import pytest

from queuerelay.overview import overview
from queuerelay.terminal import show

EVIL = "\x1b[2J\r\n\u202e\u2028"
QUANTILES = {"p95": None}


def lying() -> dict[str, Any]:
    """A status whose texts, and what should be numbers, do something to a terminal."""
    return {
        "version": EVIL,
        "health": {"severity": EVIL, "reasons": [{"severity": EVIL, "text": EVIL}]},
        "redis": {"up": EVIL, "latency": None},
        "held": [{"count": 1}],
        "failures": {"total": EVIL},
        "queues": [
            {
                **dict.fromkeys(("name", "depth", "in_flight", "delayed", "held"), EVIL),
                "gate": EVIL,
                "served": EVIL,
                "workers": EVIL,
                "oldest_age": None,
                "in_per_minute": 1.0,
                "out_per_minute": 1.0,
                "wait": QUANTILES,
                "run": QUANTILES,
            }
        ],
        "pools": [
            {
                **dict.fromkeys(("name", "host", "node", "busy", "size", "resting"), EVIL),
                "per_minute": {},
                "outcomes": {},
                "looping": EVIL,
            }
        ],
    }


@pytest.mark.parametrize("colour", [False, True])
def test_a_lying_listener_does_nothing_to_a_terminal(colour, capsys):
    show(overview(lying(), 10_000, colour=colour))
    lines = capsys.readouterr().out.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 8
    assert "\\x1b[2J" in lines[0]


def test_a_word_of_ours_has_its_colour():
    found = {**lying(), "version": "1"}
    found["health"] = {"severity": "critical", "reasons": []}
    assert "\x1b[31;1mcritical\x1b[0m" in overview(found, 10_000, colour=True)[0]
    assert overview(found, 12, colour=False)[0] == "queuerelay …"
