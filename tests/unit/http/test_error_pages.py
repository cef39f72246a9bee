"""Pages of the operator's: read whole and bounded, or a mistake that names the file."""

import os

import pytest

from queuerelay.errors import ConfigError
from queuerelay.http.error_pages import LARGEST, load_pages


def test_each_file_is_the_page_of_its_status(tmp_path):
    (tmp_path / "502.html").write_bytes(b"<p>502")
    (tmp_path / "504.html").write_bytes(b"x" * LARGEST)
    (tmp_path / "500.html").write_bytes(b"not ours")
    assert load_pages(str(tmp_path)) == {502: b"<p>502", 504: b"x" * LARGEST}


def link(path):
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b"x" * (LARGEST + 1)), "larger than 262144 bytes"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"\xff"), "not UTF-8"),
        (lambda path: path.mkdir(), "irectory"),
        (os.mkfifo, "not a file"),
        (link, "No such file"),
    ],
)
def test_what_is_no_page_is_refused_with_its_name(tmp_path, make, said):
    (tmp_path / "502.html").write_bytes(b"x")
    make(tmp_path / "503.html")
    with pytest.raises(ConfigError) as caught:
        load_pages(str(tmp_path))
    text = str(caught.value)
    assert "--error-pages" in text
    assert f"{tmp_path}/503.html: " in text
    assert said in text
    assert "\n" not in text


@pytest.mark.parametrize("name", ["missing", "file", "empty", "nul\0"])
def test_a_directory_without_pages_is_refused(tmp_path, name):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError) as caught:
        load_pages(str(tmp_path / name))
    assert "502.html" in str(caught.value)
