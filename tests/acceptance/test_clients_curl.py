"""curl in front of the relay, with a Flask application behind the queue.

Each test says what curl is asked to do, and looks at what curl and the application report of it.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import flask_app
from tests.acceptance.stage import Secure, Stage, staged
from tests.helpers.redis import ValkeyServer
from tests.helpers.waiting import eventually

#: Seconds after which curl gives up by itself.
BOUND = 30
#: The same where it is to give up.
SHORT = 0.3
UPLOAD = flask_app.pattern(2 * 1024 * 1024)
#: A little more than the relay takes.
TOO_MUCH = 17 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Transfer:
    """One URL of a run, as curl reports it."""

    #: What `--write-out '%{json}'` knows.
    report: dict[str, Any]
    #: Header sections as they came, interim ones among them.
    head: str
    body: bytes

    @property
    def status(self) -> int:
        return int(self.report["http_code"])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def field(self, name: str) -> str | None:
        """A field of the last header section."""
        for line in self.head.strip().split("\r\n\r\n")[-1].split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return None


class Curl:
    """Runs curl against one relay."""

    def __init__(self, stage: Stage, directory: Path) -> None:
        self.stage = stage
        self.directory = directory
        self.url = f"http://127.0.0.1:{stage.port}"

    def run(
        self,
        *arguments: str | Path,
        status: Sequence[int] = (0,),
        stdin: bytes = b"",
        bound: float = BOUND,
    ) -> list[bytes]:
        """Run it, one report a line on stdout; its exit status must be one of `status`."""
        ended = subprocess.run(
            [
                *("curl", "--disable", "--silent", "--show-error", "--noproxy", "127.0.0.1"),
                *("--max-time", str(bound), "--write-out", r"%{json}\n"),
                *map(str, arguments),
            ],
            cwd=self.directory,
            input=stdin,
            capture_output=True,
            timeout=2 * BOUND,
            check=False,
        )
        assert ended.returncode in status, (ended.returncode, ended.stderr)
        return ended.stdout.splitlines()

    def __call__(self, path: str, *arguments: str | Path, stdin: bytes = b"") -> Transfer:
        """One transfer."""
        head, body = self.directory / "head", self.directory / "body"
        body.write_bytes(b"")
        url = path if "://" in path else self.url + path
        out = ("--dump-header", head, "--output", body)
        reports = self.run(*out, *arguments, url, stdin=stdin)
        return Transfer(
            json.loads(reports[0]), head.read_bytes().decode("latin-1"), body.read_bytes()
        )

    def several(self, *arguments: str | Path) -> list[dict[str, Any]]:
        """The reports of a run with several URLs, in the order in which they ended."""
        return [json.loads(line) for line in self.run(*arguments)]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Secure:
    return Secure.made(tmp_path_factory.mktemp("secure"))


@pytest.fixture(scope="module")
def served(
    valkey: ValkeyServer, secure: Secure, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    if shutil.which("curl") is None:
        pytest.skip("needs curl on PATH")
    with staged(valkey, tmp_path_factory.mktemp("curl")) as stage:
        stage.relay("--listen", f"unix:{_socket(stage)}", "--listen", secure.endpoint)
        stage.worker()
        stage.worker()
        yield stage


@pytest.fixture
def curl(served: Stage, tmp_path: Path) -> Curl:
    return Curl(served, tmp_path)


def _socket(stage: Stage) -> Path:
    # Beside the server's: a Unix socket's path has 107 bytes at most.
    return stage.server.dir / "relay.sock"


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    path = tmp_path / "upload.bin"
    path.write_bytes(UPLOAD)
    return path


def is_upload(transfer: Transfer, method: str) -> None:
    """The application has read all of it."""
    assert transfer.status == 200
    assert transfer.json == {"method": method, **flask_app.digest(UPLOAD)}


# Bodies.


def test_get(curl: Curl) -> None:
    got = curl("/")
    assert (got.status, got.report["http_version"]) == (200, "1.1")
    assert "Grüße, 世界 🙂" in got.body.decode()
    assert got.field("server") == "queuerelay"
    assert got.field("x-request-id")


def test_head(curl: Curl) -> None:
    got = curl("/large", "--head")
    assert got.field("content-length") == str(len(flask_app.LARGE))


def test_large(curl: Curl) -> None:
    assert curl("/large").body == flask_app.LARGE


def test_data_is_a_form(curl: Curl) -> None:
    got = curl("/form", "-d", "a=1", "-d", "b=x y", "--data-urlencode", "c=ü&=+")
    assert got.json == {"form": {"a": ["1"], "b": ["x y"], "c": ["ü&=+"]}, "files": {}}


def test_data_in_the_query(curl: Curl) -> None:
    got = curl("/echo", "--get", "--data-urlencode", "q=ü &/?", "-d", "r")
    assert got.json["args"] == {"q": ["ü &/?"], "r": [""]}


def test_data_binary(curl: Curl, upload: Path) -> None:
    is_upload(curl("/raw", "--data-binary", f"@{upload}"), "POST")


def test_data_raw_and_method(curl: Curl) -> None:
    got = curl("/mirror", "-X", "PATCH", "--data-raw", "@not a file\n")
    assert got.body == b"@not a file\n"


def test_data_empty(curl: Curl) -> None:
    got = curl("/raw", "-d", "")
    assert got.json == {"method": "POST", **flask_app.digest(b"")}


def test_json(curl: Curl) -> None:
    got = curl("/json", "--json", '{"k": "ü"}')
    assert got.json == {"got": {"k": "ü"}}


def test_put_a_file(curl: Curl, upload: Path) -> None:
    is_upload(curl("/raw", "--upload-file", upload), "PUT")


def test_put_what_comes_from_a_pipe(curl: Curl) -> None:
    """Its length is unknown, so it goes in chunks."""
    is_upload(curl("/raw", "--upload-file", "-", stdin=UPLOAD), "PUT")


def test_put_nothing_from_a_pipe(curl: Curl) -> None:
    got = curl("/raw", "--upload-file", "-")
    assert got.json == {"method": "PUT", **flask_app.digest(b"")}


def test_post_in_chunks(curl: Curl, upload: Path) -> None:
    coded = ("-H", "Transfer-Encoding: chunked")
    is_upload(curl("/raw", *coded, "--data-binary", f"@{upload}"), "POST")


def test_multipart(curl: Curl, upload: Path) -> None:
    got = curl("/form", "-F", "text=ü\r\nx", "-F", f'file=@{upload};type=a/b;filename=ü "x".bin')
    assert got.json["form"] == {"text": ["ü\r\nx"]}
    (file,) = got.json["files"]["file"]
    assert file == {"name": 'ü "x".bin', "type": "a/b", **flask_app.digest(UPLOAD)}


def test_multipart_in_chunks(curl: Curl, upload: Path) -> None:
    coded = ("-H", "Transfer-Encoding: chunked")
    got = curl("/form", *coded, "-F", "text=1", "-F", f"file=@{upload}")
    (file,) = got.json["files"]["file"]
    assert file["sha256"] == flask_app.digest(UPLOAD)["sha256"]


def test_delete_with_and_without_a_body(curl: Curl) -> None:
    assert curl("/raw", "-X", "DELETE").json["length"] == 0
    assert curl("/raw", "-X", "DELETE", "-d", "why").json["length"] == 3


# Expect.


def test_expect_continue(curl: Curl, upload: Path) -> None:
    """curl waits for 100 longer than it may take altogether, so it was told to go on."""
    wait = ("-H", "Expect: 100-continue", "--expect100-timeout", str(2 * BOUND))
    got = curl("/raw", *wait, "--data-binary", f"@{upload}")
    is_upload(got, "POST")
    assert got.head.startswith("HTTP/1.1 100 ")


def test_expect_continue_in_chunks(curl: Curl) -> None:
    wait = ("-H", "Expect: 100-continue", "--expect100-timeout", str(2 * BOUND))
    got = curl("/raw", *wait, "--upload-file", "-", stdin=UPLOAD)
    is_upload(got, "PUT")
    assert got.head.startswith("HTTP/1.1 100 ")


def test_expect_continue_is_refused_before_a_byte_is_sent(curl: Curl, tmp_path: Path) -> None:
    path = tmp_path / "too-much.bin"
    path.write_bytes(bytes(TOO_MUCH))
    wait = ("-H", "Expect: 100-continue", "--expect100-timeout", str(2 * BOUND))
    got = curl("/raw", *wait, "--data-binary", f"@{path}")
    assert (got.status, got.report["size_upload"]) == (413, 0)
    assert " 100 " not in got.head


def test_an_unknown_expectation(curl: Curl) -> None:
    assert curl("/raw", "-H", "Expect: the-unexpected", "-d", "x").status == 417


# Refusals reach a client that is still sending.


def test_too_much(curl: Curl, tmp_path: Path) -> None:
    path = tmp_path / "too-much.bin"
    path.write_bytes(bytes(TOO_MUCH))
    got = curl("/raw", "-H", "Expect:", "--data-binary", f"@{path}")
    assert got.status == 413
    assert curl("/").status == 200


def test_too_much_in_chunks(curl: Curl) -> None:
    got = curl("/raw", "-H", "Expect:", "--upload-file", "-", stdin=bytes(TOO_MUCH))
    assert got.status == 413


def test_too_many_fields(curl: Curl) -> None:
    fields = [part for number in range(101) for part in ("-H", f"X-{number}: x")]
    assert curl("/", *fields).status == 431


def test_too_long_a_target(curl: Curl) -> None:
    assert curl("/?" + "q" * 9000).status == 414


# Versions.


def test_http_1_0(curl: Curl) -> None:
    got = curl("/echo", "--http1.0")
    assert got.json["environ"]["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert got.field("transfer-encoding") is None


def test_http_1_0_reads_a_stream_to_the_end(curl: Curl) -> None:
    got = curl("/stream", "--http1.0")
    assert got.body.decode().splitlines() == [f"row {number} ü" for number in range(100)]
    assert got.field("transfer-encoding") is None


def test_http_1_0_post(curl: Curl, upload: Path) -> None:
    is_upload(curl("/raw", "--http1.0", "--data-binary", f"@{upload}"), "POST")


def test_an_upgrade_to_http_2_is_not_taken(curl: Curl) -> None:
    got = curl("/", "--http2")
    assert (got.status, got.report["http_version"]) == (200, "1.1")


def test_http_2_without_asking_ends(curl: Curl) -> None:
    """Its preface is no request of ours; curl says so instead of waiting."""
    curl.run("--http2-prior-knowledge", curl.url + "/", status=[16, 52, 56])


# Conditions, ranges, codings.


def test_range(curl: Curl) -> None:
    got = curl("/file", "--range", "100-299")
    assert got.status == 206
    assert got.body == flask_app.LARGE[100:300]
    assert got.field("content-range") == "bytes 100-299/10000"


def test_range_of_the_end(curl: Curl) -> None:
    assert curl("/file", "--range", "-7").body == flask_app.LARGE[9993:10000]


def test_a_download_is_resumed(curl: Curl, tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    partial.write_bytes(flask_app.LARGE[:4321])
    curl.run("--continue-at", "-", "--output", partial, curl.url + "/file")
    assert partial.read_bytes() == flask_app.LARGE[:10000]


def test_compressed(curl: Curl) -> None:
    got = curl("/encoded", "--compressed")
    assert got.body == b"compressed " * 1000
    assert got.field("content-encoding") == "gzip"


def test_etag(curl: Curl, tmp_path: Path) -> None:
    etag = tmp_path / "etag"
    assert curl("/file", "--etag-save", etag).status == 200
    again = curl("/file", "--etag-compare", etag)
    assert (again.status, again.body) == (304, b"")


def test_time_condition(curl: Curl) -> None:
    assert curl("/file", "--time-cond", "Sat, 29 Feb 2020 12:00:00 GMT").status == 304
    assert curl("/file", "--time-cond", "Sat, 29 Feb 2020 11:00:00 GMT").status == 200


# Connections.


def test_one_connection_for_all(curl: Curl) -> None:
    """Answers with a length, in chunks, without a body; HEAD; POST with a length and in chunks."""
    runs: list[str | Path] = []
    for arguments in (
        ("/",),
        ("/stream",),
        ("/nothing",),
        ("/large", "--head"),
        ("/file", "-H", 'If-None-Match: "fixed-etag"'),
        ("/missing",),
        ("/form", "-d", "a=1"),
        ("/raw", "-H", "Transfer-Encoding: chunked", "-d", "a=1"),
        ("/empty",),
        ("/reset",),
        ("/file", "--range", "0-9"),
        ("/large",),
        ("/say/last",),
    ):
        path, *rest = arguments
        more = ["--next", "--silent", "--show-error", "--write-out", r"%{json}\n"] if runs else []
        runs += [*more, *rest, "--output", "/dev/null", curl.url + path]
    reports = curl.several(*runs)
    assert [one["http_code"] for one in reports] == [
        *(200, 200, 204, 200, 304, 404, 200, 200, 200, 205, 206, 200, 200),
    ]
    assert sum(one["num_connects"] for one in reports) == 1
    assert len({one["local_port"] for one in reports}) == 1


def test_connection_close(curl: Curl) -> None:
    got = curl("/", "-H", "Connection: close")
    assert got.field("connection") == "close"
    urls = [curl.url + "/say/a", curl.url + "/say/b"]
    out = ("--output", "a", "--output", "b")
    reports = curl.several("-H", "Connection: close", *out, *urls)
    assert sum(one["num_connects"] for one in reports) == 2


def test_many_at_once(curl: Curl) -> None:
    curl.several(
        *("--parallel", "--parallel-max", "20", "--output", "word-#1"),
        curl.url + "/say/[1-60]",
    )
    for number in range(1, 61):
        said = json.loads((curl.directory / f"word-{number}").read_bytes())
        assert said["word"] == str(number)


def test_unix_socket(curl: Curl) -> None:
    path = _socket(curl.stage)
    got = curl("http://shop.example/echo", "--unix-socket", path, "-X", "PUT", "-d", "x=1")
    assert got.json["environ"]["HTTP_HOST"] == "shop.example"
    assert got.json["body"] == "x=1"


# Redirections, cookies, targets.


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed(curl: Curl, code: int) -> None:
    got = curl(f"/redirect/{code}", "--location")
    assert (got.status, got.report["num_redirects"]) == (200, 1)
    assert got.json["path"] == "neu/ü x"
    assert got.json["args"] == {"q": ["a&b"]}


def test_cookies(curl: Curl, tmp_path: Path) -> None:
    jar = tmp_path / "jar"
    resolved = ("--resolve", f"shop.example:{curl.stage.port}:127.0.0.1")
    url = f"http://shop.example:{curl.stage.port}/cookies"
    curl(url, *resolved, "--cookie-jar", jar, "-d", "")
    got = curl(url, *resolved, "--cookie", jar)
    # "full" is for another path and has expired, "strict" is for https alone.
    assert got.json == {"plain": "1"}


def test_path_as_is(curl: Curl) -> None:
    got = curl("/items/a/../b//c", "--path-as-is")
    assert got.json["path"] == "a/../b//c"


def test_trace_is_refused(curl: Curl) -> None:
    assert curl("/", "-X", "TRACE").status == 405


def test_the_relay_as_a_proxy(curl: Curl) -> None:
    """The client's way to say the whole URL; the application sees the host that is meant."""
    got = curl("http://other.example:81/echo?a=b", "--proxy", curl.url)
    assert got.json["environ"]["HTTP_HOST"] == "other.example:81"
    assert got.json["args"] == {"a": ["b"]}


def test_no_tunnel(curl: Curl) -> None:
    """CONNECT gets 501, so curl has received nothing that it could use (56)."""
    (report,) = curl.run(
        *("--proxytunnel", "--proxy", curl.url, "http://other.example/"), status=[56]
    )
    assert json.loads(report)["http_connect"] == 501


# Leaving.


def test_a_client_that_gives_up(curl: Curl) -> None:
    """What it has asked for and nobody has begun is taken off the queue."""
    with curl.stage.busy("curl"):
        curl.run("--output", "/dev/null", f"{curl.url}/say/never", status=[28], bound=SHORT)
        eventually(lambda: curl.stage.queued() == 0)
    assert curl("/say/after").json["word"] == "after"


def test_a_client_that_leaves_a_download(curl: Curl) -> None:
    """It is given the whole length, wants none of it, and closes (63)."""
    big = f"{curl.url}/large"
    curl.run("--output", "/dev/null", "--max-filesize", "1000", big, status=[63])
    assert curl("/say/after").json["word"] == "after"


def test_events_come_one_by_one(curl: Curl) -> None:
    """The second one is sent when the first one has been read."""
    process = subprocess.Popen(
        [
            *("curl", "--disable", "--no-progress-meter", "--no-buffer", "--noproxy", "*"),
            *("--max-time", str(BOUND), f"{curl.url}/events/curl"),
        ],
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        first = b"".join(process.stdout.readline() for _ in range(4))
        assert first == "retry: 60000\nid: 1\ndata: first ü\n\n".encode()
        curl.stage.go("curl")
        assert process.stdout.read() == b"id: 2\nevent: named\ndata: second\ndata: line\n\n"
    assert process.returncode == 0


# TLS.


def test_tls(curl: Curl, secure: Secure) -> None:
    """curl offers HTTP/2 and 1.1, and gets 1.1."""
    url = f"https://localhost:{secure.port}"
    got = curl(f"{url}/echo", "--cacert", secure.ca, "-d", "a=1")
    assert got.report["http_version"] == "1.1"
    assert got.json["environ"]["wsgi.url_scheme"] == "https"
    assert got.json["body"] == "a=1"


def test_tls_keeps_its_connection(curl: Curl, secure: Secure, upload: Path) -> None:
    url = f"https://localhost:{secure.port}"
    reports = curl.several(
        *("--cacert", secure.ca, "--output", "large", f"{url}/large", "--next"),
        *("--silent", "--show-error", "--write-out", r"%{json}\n", "--cacert", secure.ca),
        *("--upload-file", upload, "--output", "raw", f"{url}/raw"),
    )
    assert [one["http_code"] for one in reports] == [200, 200]
    assert sum(one["num_connects"] for one in reports) == 1
    assert (curl.directory / "large").read_bytes() == flask_app.LARGE
    put = {"method": "PUT", **flask_app.digest(UPLOAD)}
    assert json.loads((curl.directory / "raw").read_bytes()) == put


def test_tls_and_too_much(curl: Curl, secure: Secure, tmp_path: Path) -> None:
    path = tmp_path / "too-much.bin"
    path.write_bytes(bytes(TOO_MUCH))
    send = ("--cacert", secure.ca, "-H", "Expect:", "--data-binary", f"@{path}")
    assert curl(f"https://localhost:{secure.port}/raw", *send).status == 413
