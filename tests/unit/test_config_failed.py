"""What is kept of dead letters, from the file and the command line."""

import pytest

from queuerelay.config import load
from queuerelay.errors import ConfigError
from queuerelay.wire.failure import Kept


def test_the_table_of_the_file(tmp_path):
    file = tmp_path / "queuerelay.toml"
    file.write_text(
        "[failed]\nmax_count = 5\nmax_bytes = 1048576\nmax_age = 60\nmax_body = 0\n"
        'redact = ["X-Own"]\n'
    )
    found = load(str(file), {"failed-max-count": "7"}).failed
    assert found == Kept(
        max_count=7, max_bytes=1048576, max_age=60.0, max_body=0, redact=("x-own",)
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("180d", 180 * 86400.0), ("12h", 43200.0), ("1.5m", 90.0), ("60", 60.0), ("3600s", 3600.0)],
)
def test_an_age_has_a_unit(text, seconds):
    assert load(None, {"failed-max-age": text}).failed.max_age == seconds


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("failed-max-age", one) for one in ("", "soon", "59", "1w", "-1d", "1e9", "9999999999d")),
        *(("failed-redact", one) for one in ("", "a b", "x-own,,y", "ü")),
        *(("failed-max-count", one) for one in ("0", "x")),
        ("failed-max-bytes", "1"),
        ("failed-max-body", "-1"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(name, value):
    with pytest.raises(ConfigError) as caught:
        load(None, {name: value})
    assert f"--{name}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["max_age = true", "max_age = []", "redact = 'x'", "redact = [1]", "max = 1"]
)
def test_a_wrong_line_of_the_file_is_refused(tmp_path, line):
    file = tmp_path / "queuerelay.toml"
    file.write_text(f"[failed]\n{line}\n")
    with pytest.raises(ConfigError, match=r"failed\."):
        load(str(file), {})
