"""The access log: one whole line for each request, whatever clients send and disks do."""

import re
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.web.http_headers import Headers

from queuerelay.http import accesslog
from queuerelay.http.accesslog import AccessLog
from queuerelay.log_format import Entry, escape
from queuerelay.wire.reply import encode_frame, encode_reply
from tests.helpers.log_line import LINE, lines
from tests.helpers.strict import request


def entry(**fields):
    headers = Headers()
    for name, value in fields.pop("headers", {}).items():
        headers.addRawHeader(name, value)
    return Entry(
        **{
            "client": IPv4Address("TCP", "203.0.113.5", 1234),
            "method": b"GET",
            "target": b"/",
            "version": b"HTTP/1.1",
            "status": 200,
            "length": 5,
            "id": b"abc",
            "end": "answered",
            **fields,
        },
        headers=headers,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "access.log"


@pytest.fixture
def log(path):
    log = AccessLog(str(path), wall_clock=lambda: 1_790_000_000.5)
    log.open()
    yield log
    log.close()


def test_a_line_has_what_the_combined_format_has_and_the_id(log, path):
    times = {"wait": 0.01249, "run": 0.34, "total": 1000.0}
    headers = {b"referer": b"http://a/", b"user-agent": b"curl/8"}
    log.add(entry(headers=headers, queue="high", **times))
    log.add(entry(client=UNIXAddress(None), status=499, length=0, end="gone"))
    log.add(entry(client="", queue="a \xe9" + "x" * 300, wait=0.0))
    assert path.read_bytes() == b"", "it waits for others"
    log.flush()
    assert path.read_bytes().splitlines() == [
        b'203.0.113.5 - - [21/Sep/2026:14:13:20 +0000] "GET / HTTP/1.1" 200 5 '
        b'"http://a/" "curl/8" queue=high wait=0.012 run=0.340 total=1000.000 end=answered id=abc',
        b'- - - [21/Sep/2026:14:13:20 +0000] "GET / HTTP/1.1" 499 0 "-" "-" '
        b"queue=- wait=- run=- total=- end=gone id=abc",
        b'- - - [21/Sep/2026:14:13:20 +0000] "GET / HTTP/1.1" 200 5 "-" "-" '
        b"queue=a\\x20\\xc3\\xa9" + b"x" * 253 + b" wait=0.000 run=- total=- end=answered id=abc",
    ]


class Fields(dict):
    getRawHeaders = dict.get


TEXT = st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode())


@given(
    method=TEXT,
    target=TEXT,
    version=TEXT,
    referer=TEXT,
    agent=TEXT,
    client=st.text(max_size=20),
    queue=st.text(max_size=20),
)
def test_nothing_of_a_client_breaks_a_line(method, target, version, referer, agent, client, queue):
    log = AccessLog("/dev/null", wall_clock=lambda: 0.0)
    # twisted.web's Headers refuses what a field cannot have; ours must hold without that.
    one = replace(
        entry(method=method, target=target, version=version, client=client, queue=queue),
        headers=Fields({b"referer": [referer], b"user-agent": [agent]}),
    )
    log.add(one)
    (line,) = log._lines
    found = LINE.fullmatch(line)
    assert found is not None, line
    assert found[6] == escape(referer)


@given(TEXT)
def test_what_is_escaped_is_printable_and_can_be_read_back(text):
    escaped = escape(text)
    assert re.fullmatch(rb"[ -~]*", escaped)
    assert b'"' not in escaped
    plain = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), escaped)
    assert plain == text


def test_a_long_text_is_cut(log):
    log.add(entry(target=b"/" + b"x" * 100_000))
    assert len(log._lines[0]) < 3000


def test_much_is_written_without_waiting(log, path):
    while not path.stat().st_size:
        log.add(entry(target=b"/" + b"x" * 1000))
    assert path.stat().st_size >= accesslog.FLUSH_BYTES
    assert all(LINE.fullmatch(line) for line in path.read_bytes().splitlines(keepends=True))


class Disk:
    """A file on a disk that may be full."""

    def __init__(self):
        self.room = 0
        self.tries = 0
        self.written = b""

    def fileno(self):
        raise OSError("none of which anything can be taken back")

    def write(self, data):
        self.tries += 1
        if not self.room:
            raise OSError(28, "No space left on device")
        taken = data[: self.room]
        self.room -= len(taken)
        self.written += taken
        return len(taken)

    def close(self): ...


# Promise 6
def test_promise_6_a_full_disk_costs_lines_not_memory_and_says_so_once(log, log_lines):
    disk, log._file.close = Disk(), log._file.close
    real, log._file = log._file, disk
    try:
        one = entry(target=b"/" + b"x" * 1900)
        for _ in range(5000):
            log.add(one)
        for _ in range(5):
            log.flush()
        assert log._size <= accesslog.BUFFER_BYTES
        assert sum(map(len, log._lines)) == log._size
        assert log.dropped > 1000
        # Not a try for each request, and one line about it.
        assert disk.tries < 10
        assert len([line for line in log_lines() if "cannot be written" in line]) == 1
        # Room for a line and a half: the half is not lost.
        disk.room = 3000
        log.flush()
        disk.room = 2**30
        log.flush()
        lines = disk.written.splitlines(keepends=True)
        assert all(LINE.fullmatch(line) for line in lines)
        assert len(lines) + log.dropped == 5000
        assert len([line for line in log_lines() if "can be written again" in line]) == 1
        log.add(one)
        log.flush()
        assert disk.written.count(b"\n") == len(lines) + 1
    finally:
        log._file = real


def test_promise_6_what_a_full_disk_cut_is_taken_back_and_counted_once(log, path, log_lines):
    class Full:
        """A file with room for so many bytes."""

        room = 0

        def __init__(self, file):
            self.file, self.fileno, self.close = file, file.fileno, file.close

        def write(self, data):
            if not self.room:
                raise OSError("No space left on device")
            written = self.file.write(data[: self.room])
            self.room -= written
            return written

    full = log._file = Full(log._file)
    for number in range(5):
        log.add(entry(id=b"%d" % number))
    line = len(log._lines[0])
    full.room = line * 5 // 2
    log.flush()
    assert [line[13] for line in lines(path)] == [b"0", b"1"]
    full.room = line + 1
    log.flush()
    full.room = 0
    log.close()
    assert [line[13] for line in lines(path)] == [b"0", b"1", b"2"]
    assert path.read_bytes().endswith(b"\n")
    assert log.dropped == 2
    assert [line for line in log_lines() if "not complete: 2 lines were lost" in line]


def test_what_is_left_at_the_end_is_told(log, log_lines):
    real, log._file = log._file, Disk()
    log.add(entry())
    log.close()
    real.close()
    assert any("not complete" in line for line in log_lines())


def test_a_renamed_file_gets_what_was_noted_before_and_the_new_one_the_rest(log, path):
    log.add(entry(id=b"before"))
    old = path.rename(path.with_suffix(".1"))
    log.add(entry(id=b"between"))
    log.reopen()
    log.add(entry(id=b"after"))
    log.flush()
    assert [line[13] for line in lines(old)] == [b"before", b"between"]
    assert [line[13] for line in lines(path)] == [b"after"]


def test_a_file_that_cannot_be_opened_again_is_told_and_the_old_one_goes_on(log, path, log_lines):
    old = path.rename(path.with_suffix(".1"))
    path.mkdir()
    log.reopen()
    log.add(entry())
    log.flush()
    assert old.read_bytes().count(b"\n") == 1
    assert [line for line in log_lines() if "cannot be opened again" in line]
    path.rmdir()
    log.reopen()
    log.add(entry())
    log.flush()
    assert path.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize("room", ["half", "whole"])
def test_a_line_that_a_full_disk_cut_is_not_continued_in_another_file(log, path, room):
    disk, real = Disk(), log._file
    log._file = disk
    for number in range(3):
        log.add(entry(id=b"%d" % number))
    disk.room = len(log._lines[0]) * 3 // 2 if room == "half" else len(log._lines[0])
    log.flush()
    log.reopen()
    log.flush()
    kept = [b"2"] if room == "half" else [b"1", b"2"]
    assert [line[13] for line in lines(path)] == kept
    assert log.dropped == (room == "half")
    real.close()


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path):
    with pytest.raises(OSError, match="Is a directory"):
        AccessLog(str(tmp_path), wall_clock=lambda: 0.0).open()


def test_a_log_that_is_not_open_keeps_lines_and_does_not_fail(path):
    log = AccessLog(str(path), wall_clock=lambda: 0.0)
    log.add(entry())
    log.flush()
    log.open()
    log.close()
    assert path.read_bytes().count(b"\n") == 1


def test_every_request_of_the_front_gets_its_line(make_stage, log, path):
    stage = make_stage(access_log=log, max_body=10, max_held=2, deadline=5)
    stage.connect().send(request("GET", "/ok", ("User-Agent", 'x"y')))
    stage.turn(1)
    stage.reply(stage.take(), body=b"12345", timing={"wait": 0.25, "run": 0.5})
    stage.connect().send(request("GET", "/gone")).leave()
    stage.connect().send(request("POST", "/large", body=b"x" * 11))
    stage.connect().send(request("POST", "/large", body=b"x" * 11)).leave()
    stage.connect().send(request("POST", "/half", body=b"x" * 9)[:-1]).leave()
    stage.connect().send(b"nonsense\r\n\r\n")
    stage.connect().send(b"GET /bad HTTP/1.1\r\nno colon\r\n\r\n")
    slow = stage.connect().send(b"GET /slow HTTP/1.1\r\nHost: a\r\n")
    stage.turn(stage.front.connections.limits.header_time + 1.1)
    assert slow.response().status == 408
    # A connection without a request has no line.
    stage.connect().leave()
    garbled = stage.connect().send(request("HEAD", "/garbled"))
    stage.push_reply(encode_reply(node_id=stage.take()["node_id"]).replace(b":200", b":9"))
    assert garbled.response("HEAD").status == 502
    cut = stage.connect().send(request("GET", "/cut"))
    id = stage.take()["node_id"]
    stage.push_reply(b'{"node_id":"%b","status":201,"body":"abc","more":true}' % id.encode())
    stage.push_reply(b'{"node_id":"%b","more":7}' % id.encode())
    assert cut.wire.cut
    for number in range(3):
        stage.connect().send(request("GET", f"/full/{number}"))
    stage.take()
    stage.turn(5.5)
    stage.close()
    log.flush()
    found = lines(path)
    assert [(line[3].split()[1], line[4], line[12], line[8]) for line in found] == [
        (b"/ok", b"200", b"answered", b"requests"),
        (b"/gone", b"499", b"gone", b"requests"),
        (b"/large", b"413", b"early", b"-"),
        (b"/large", b"413", b"early", b"-"),
        (b"/half", b"499", b"gone", b"-"),
        (b"-", b"400", b"early", b"-"),
        (b"/bad", b"400", b"early", b"-"),
        (b"/slow", b"408", b"early", b"-"),
        (b"/garbled", b"502", b"refused", b"requests"),
        (b"/cut", b"201", b"aborted", b"requests"),
        (b"/full/2", b"503", b"refused", b"-"),
        (b"/full/0", b"504", b"expired", b"requests"),
        (b"/full/1", b"503", b"expired", b"requests"),
    ]
    assert (found[0][5], found[0][7]) == (b"5", b"x\\x22y")
    assert found[0].group(9, 10) == (b"0.250", b"0.500")
    assert 1 <= float(found[0][11]) < 1.2
    assert found[2].group(9, 10, 11) == (b"-", b"-", b"-")
    assert found[8][5] == b"0", "HEAD has no body"
    assert 5 <= float(found[11][11]) < 5.5


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 200), ("GET", 204)])
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "frame by frame"])
def test_a_streamed_answer_that_is_whole_is_an_answer(
    make_stage, log, path, method, status, batches
):
    stage = make_stage(access_log=log)
    stage.connect().send(request(method, "/stream"))
    id = stage.take()["node_id"]
    first = encode_reply(node_id=id, status=status, body=b"abc", more=True)
    last = encode_frame(node_id=id, body=b"de", more=False)
    if batches == 1:
        stage.push_reply(first, last)
    else:
        stage.push_reply(first)
        stage.push_reply(last)
    log.flush()
    (line,) = lines(path)
    has_body = method == "GET" and status == 200
    assert (line[4], line[12], line[5]) == (b"%d" % status, b"answered", b"5" if has_body else b"0")


def test_a_large_answer_has_its_line_when_it_has_left(make_stage, log, path):
    stage = make_stage(access_log=log)
    left = stage.connect().send(request("GET", "/left"))
    read = stage.connect().send(request("GET", "/read"))
    for connection in (left, read):
        connection.protocol.pauseProducing()
    stage.reply(stage.take(), body=b"x" * 1_000_000)
    stage.reply(stage.take(), body=b"x" * 1_000_000)
    log.flush()
    assert path.read_bytes() == b""
    left.wire.producer.stopProducing()
    left.leave()
    read.protocol.resumeProducing()
    stage.turn()
    log.flush()
    first, second = lines(path)
    assert (first[3].split()[1], first[4], first[12]) == (b"/left", b"200", b"gone")
    assert first[5] == b"0"
    assert second.group(4, 5, 12) == (b"200", b"1000000", b"answered")
