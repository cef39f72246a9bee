"""Names of queues and classes: the same rule wherever one is taken."""

import re

import pytest

from queuerelay.config import values
from queuerelay.errors import ConfigError
from queuerelay.status.views.openapi import openapi
from queuerelay.wire.names import is_class_name, is_queue_name

GOOD = ["requests", "mp3.high", "grüße", "a" * 128, "*", "\U0001f600"]
BAD = [
    *("", "a" * 129, "a b", "a\tb", "a\nb", "a\n", "\x00", "\x7f", "\x9f", "a:b", "a,b"),
    *("\N{NO-BREAK SPACE}", "\N{LINE SEPARATOR}", "\udc80"),
]


@pytest.mark.parametrize("name", GOOD)
def test_names_of_queues(name):
    assert is_queue_name(name)
    assert values.queue(name, "queue") == name


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_name_of_a_queue(name):
    assert not is_queue_name(name)
    with pytest.raises(ConfigError):
        values.queue(name, "queue")


def test_openapi_says_the_same():
    found = {
        one["name"]: one["schema"]
        for path in openapi()["paths"].values()
        for one in path.get("post", {}).get("parameters", [])
    }
    pattern = found["queue"]["pattern"]
    assert [name for name in GOOD if not re.search(pattern, name)] == []
    # Python's ``$`` lets one line feed stand behind it, JSON Schema's does not.
    assert [name for name in BAD if re.search(pattern, name)] == ["a\n"]


def test_names_of_classes():
    assert all(map(is_class_name, ["Job", "Mp3::Job", "app.Job", "App\\Job", "_j", "j" * 128]))
    assert not any(map(is_class_name, ["", "1Job", "a b", "Job\n", "j" * 129, "é"]))
