"""Bounded capture of what children print."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.pool.output import BURST, LINE, STDERR_TAIL, STILL, Capture, Lines, Tail, readable

CHUNKS = st.lists(st.binary(max_size=40), max_size=30)
MiB = 1024 * 1024


def fed(capture, chunks):
    for chunk in chunks:
        capture.feed(chunk)
    return capture


# --- Capture -------------------------------------------------------------------------------------


@given(chunks=CHUNKS, size=st.integers(1, 50))
def test_tail_is_the_end_of_everything(chunks, size):
    assert fed(Tail(size), chunks).value() == b"".join(chunks)[-size:]


@given(
    chunks=CHUNKS,
    whole=st.booleans(),
    cap=st.integers(0, 200),
    head=st.integers(0, 50),
    tail=st.integers(1, 50),
)
def test_capture_keeps_all_or_both_ends(chunks, whole, cap, head, tail):
    capture = fed(Capture(whole=whole, cap=cap, head=head, tail=tail), chunks)
    everything = b"".join(chunks)
    head = min(head, cap)
    assert capture.total == len(everything)
    assert capture.over_limit == (len(everything) > cap)
    if len(everything) <= head + tail or (whole and not capture.over_limit):
        assert capture.left_out == 0
        assert capture.value() == capture.excerpt() == everything
    else:
        left_out = len(everything) - head - tail
        assert capture.left_out == left_out
        gap = b"\n... %d bytes left out ...\n" % left_out
        assert capture.excerpt() == everything[:head] + gap + everything[-tail:]
        with pytest.raises(ValueError, match=f"{left_out} of {len(everything)} bytes"):
            capture.value()


def test_a_whole_answer_up_to_the_cap_and_no_further():
    capture = Capture(whole=True, cap=1000, head=10, tail=10)
    capture.feed(b"a" * 1000)
    assert not capture.over_limit
    assert capture.value() == b"a" * 1000
    capture.feed(b"b")
    assert capture.over_limit
    assert capture.excerpt() == b"a" * 10 + b"\n... 981 bytes left out ...\n" + b"a" * 9 + b"b"
    assert capture._kept.__sizeof__() < 1000


@pytest.mark.heavy
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("size", [1, 65536])
def test_a_flood_costs_little_memory(whole, size):
    chunk = b"x" * size
    tracemalloc.start()
    try:
        capture = Capture(whole=whole, cap=MiB)
        lines = Lines()
        for number in range(200_000 if size == 1 else 2 * 1024 * MiB // size // 16):
            capture.feed(chunk)
            lines.feed(chunk, number)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MiB


# --- Lines ---------------------------------------------------------------------------------------


#: What is written over is another matter.
NO_RETURNS = st.binary(max_size=200).map(lambda text: text.replace(b"\r", b"r"))


@given(text=NO_RETURNS, cuts=st.lists(st.integers(0, 200)))
def test_lines_do_not_depend_on_how_they_arrive(text, cuts):
    lines = Lines(longest=20, tail=30)
    got = []
    start = 0
    for cut in [*sorted(cuts), len(text)]:
        got += lines.feed(text[start:cut], 0.0)
        start = max(start, cut)
    got += lines.finish()
    at_once = Lines(longest=20, tail=30)
    assert got == at_once.feed(text, 0.0) + at_once.finish()
    assert len(got) == len(text.removesuffix(b"\n").split(b"\n")) - (text == b"")
    assert (lines.total, lines.skipped) == (len(text), 0)
    assert lines.tail() == at_once.tail()
    assert all("\n" not in line and "\x1b" not in line for line in got)


def test_line_ends():
    lines = Lines()
    assert lines.feed(b"one\r\ntwo\n\nthr", 0.0) == ["one", "two", ""]
    assert lines.feed(b"ee", 0.0) == []
    assert lines.finish() == ["three"]
    assert lines.finish() == []


PIECES = st.lists(st.sampled_from([b"a", b"bc", b"\r", b"\n", b"\r\n", b"\xff"]), max_size=30)


@given(pieces=PIECES)
def test_of_what_is_written_over_the_last_state_counts_however_it_arrives(pieces):
    lines, got = Lines(), []
    for piece in pieces:
        got += lines.feed(piece, 0.0)
    got += lines.finish()
    text = b"".join(pieces)
    at_once = Lines()
    assert got == at_once.feed(text, 0.0) + at_once.finish()
    *ended, rest = [line.rstrip(b"\r").rpartition(b"\r")[2] for line in text.split(b"\n")]
    assert got == [readable(line) for line in [*ended, *([rest] if rest else [])]]
    assert lines.tail().splitlines() == got
    assert "\r" not in lines.tail()


def test_a_progress_bar_is_one_line_and_takes_no_room_in_the_record():
    lines = Lines()
    assert lines.feed(b"reading\n", 0.0) == ["reading"]
    for step in range(5000):
        assert lines.feed(b"\r[%-50s] %d/5000" % (b"#" * (step // 100), step), 0.1 * step) == []
        # It moves.
        assert lines.so_far(0.1 * step + 1.0) == ""
    assert lines.feed(b"\nERROR: disk full\n", 501.0)[1:] == ["ERROR: disk full"]
    assert lines.tail() == f"reading\n[{'#' * 49:<50}] 4999/5000\nERROR: disk full\n"
    assert lines.skipped == 0


def test_a_progress_bar_that_stands_still_is_shown():
    lines = Lines()
    lines.feed(b"\r 37%", 0.0)
    lines.feed(b"\r 38%", 1.0)
    assert lines.so_far(2.0 + STILL) == " 38%"
    assert lines.so_far(2.0 + 2 * STILL) == ""
    # It goes on.
    assert lines.feed(b"\r 39%\n", 200.0) == [" 39%"]


def test_a_line_without_end_is_shown_and_goes_on():
    lines = Lines(burst=2, rate=0.0)
    lines.feed(b"working...", 0.0)
    assert lines.so_far(1.0) == "working..."
    assert not lines.unfinished
    assert lines.so_far(2.0) == ""
    # What has been shown is no empty line at its end.
    assert lines.feed(b"\n", 3.0) == []
    lines.feed(b"more", 4.0)
    assert lines.so_far(5.0) == "more"
    # There were too many.
    lines.feed(b" of it", 6.0)
    assert lines.so_far(7.0) == ""
    assert lines.finish() == [" of it"]


def test_long_line_is_cut_and_says_so():
    lines = Lines()
    for _ in range(100):
        assert lines.feed(b"x" * 1000, 0.0) == []
    dropped = 100_000 - LINE
    assert lines.feed(b"\nshort\n", 0.0) == ["x" * LINE + f" [{dropped} bytes more]", "short"]
    assert lines.feed(b"y" * (LINE + 1), 0.0) == []
    assert lines.finish() == ["y" * LINE + " [1 bytes more]"]


def test_flood_of_lines_is_thinned_and_counted():
    lines = Lines(burst=3, rate=2.0)
    assert lines.feed(b"1\n2\n3\n4\n5\nhalf", 10.0) == ["1", "2", "3"]
    assert lines.skipped == 2
    assert lines.feed(b" a line\nno\n", 10.5) == ["half a line"]
    assert lines.skipped == 3
    # The clock going back gives nothing, and a long rest no more than the burst.
    assert lines.feed(b"no\n", 0.0) == []
    assert lines.feed(b"\n" * 10, 1000.0) == ["", "", ""]
    assert lines.skipped == 4 + 7
    assert lines.tail() == "1\n2\n3\n4\n5\nhalf a line\nno\nno\n" + "\n" * 10


def test_end_of_a_skipped_long_line_is_not_taken_for_a_line():
    lines = Lines(burst=1, longest=4)
    assert lines.feed(b"a\nlonger", 0.0) == ["a"]
    assert lines.feed(b" still\nnew", 0.0) == []
    assert lines.skipped == 1
    assert lines.finish() == ["new"]


def test_two_gigabytes_of_empty_lines_are_few_lines():
    lines = Lines()
    chunk = b"\n" * 65536
    got = sum(len(lines.feed(chunk, 0.0)) for _ in range(1000))
    assert got == BURST
    assert lines.skipped == 65_536_000 - BURST


def test_tail_is_text_whatever_was_printed():
    lines = Lines()
    lines.feed(b"\xff\xfe caf\xc3\xa9 \x1b[31mred\x00\r\nnext\ttab\n", 0.0)
    assert lines.tail() == "\\xff\\xfe café \\x1b[31mred\\x00\nnext\ttab\n"


def test_tail_begins_with_a_whole_character():
    lines = Lines()
    lines.feed("é".encode() * STDERR_TAIL + b"x", 0.0)
    assert lines.tail() == "é" * (STDERR_TAIL // 2 - 1) + "x"
    plain = Lines(tail=4)
    plain.feed(b"\x80\x80\x80\x80\x80\x80", 0.0)
    assert plain.tail() == "\\x80" * 4


@given(st.binary())
def test_readable_has_no_controls(text):
    assert all(char.isprintable() or char in "\t\n" or ord(char) > 0x9F for char in readable(text))


def test_readable_escapes_what_moves_the_cursor():
    assert readable("a\u2028b\x85c\x9b".encode()) == "a\\u2028b\\x85c\\x9b"
