"""What tests of the configuration share."""

import pytest

from queuerelay.config import load
from queuerelay.errors import ConfigError


def refused(path: str | None = None, options: dict[str, object] | None = None) -> str:
    """The error's text, which is one line."""
    with pytest.raises(ConfigError) as caught:
        load(path, options)
    text = str(caught.value)
    assert text.startswith("wrong configuration: ")
    assert "\n" not in text
    assert len(text) < 1000
    return text.removeprefix("wrong configuration: ")
