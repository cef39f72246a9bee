"""The sample site, called as any WSGI server would call it (with PEP 3333's own validator)."""

import io
import json
import sys
from pathlib import Path
from urllib.parse import urlencode
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "etc" / "examples"))
import sample_site

sys.path.pop(0)


def get(path="/", method="GET", form=None, **environ):
    body = b"" if form is None else urlencode(form).encode()
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        **environ,
    }
    setup_testing_defaults(environ)
    began = []
    answer = validator(sample_site.app)(environ, lambda *args: began.append(args))
    try:
        text = b"".join(answer).decode()
    finally:
        answer.close()
    [(status, headers)] = began
    return int(status.split()[0]), dict(headers), text


def test_index_is_one_page_without_foreign_files():
    status, headers, page = get()
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Content-Length"] == str(len(page.encode()))
    assert "light dark" in page
    assert 'action="/echo"' in page
    assert not [word for word in ("http:", "https:", "src=", "@import") if word in page]


def test_form_comes_back_escaped():
    _, _, page = get("/echo", "POST", {"text": "<script>'\"&é"})
    assert "<blockquote>&lt;script&gt;&#x27;&quot;&amp;é</blockquote>" in page


def test_form_without_the_field():
    assert "<blockquote></blockquote>" in get("/echo", "POST", {"other": "x"})[2]


def test_too_large_form():
    assert get("/echo", "POST", {"text": "x" * 70_000})[0] == 413


@pytest.mark.parametrize(("asked", "slept"), [("0", 0), ("-3", 0), ("1e9", 30), ("nan", 0)])
def test_slow_page_is_bounded(monkeypatch, asked, slept):
    seconds = []
    monkeypatch.setattr(sample_site.time, "sleep", seconds.append)
    assert get("/slow", QUERY_STRING=f"seconds={asked}")[0] == 200
    assert seconds == [slept]


def test_slow_page_with_nonsense():
    assert get("/slow", QUERY_STRING="seconds=soon")[0] == 400


def test_headers_as_json():
    status, headers, text = get("/headers", "PUT", HTTP_X_A="b")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(text)["HTTP_X_A"] == "b"


def test_other_pages_and_methods():
    assert get("/nowhere")[0] == 404
    status, headers, _ = get("/", "POST", {})
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_head_has_no_body():
    status, headers, text = get("/", "HEAD")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) > 0
