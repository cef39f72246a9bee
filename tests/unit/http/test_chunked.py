"""What of chunked bodies the corpus of requests does not show: bounds, and the shape of the API."""

import random

import pytest

from queuerelay.errors import BadRequest, BodyTooLarge, HeaderTooLarge, Refusal
from queuerelay.http.chunked import EXTENSIONS, SIZE_LINE, ChunkedDecoder
from queuerelay.http.head import HeadLimits


def decoder(max_body=1000, **limits):
    return ChunkedDecoder(HeadLimits(**limits), max_body=max_body)


def test_the_body_comes_as_it_arrives_and_the_rest_is_given_back():
    one = decoder()
    assert one.feed(b"3\r\nab") == b"ab"
    assert one.feed(b"c\r\n2") == b"c"
    assert one.feed(b"\r\nde\r\n") == b"de"
    assert one.rest is None
    assert one.feed(b"0\r\n\r\nGET") == b""
    assert one.rest == b"GET"


# Promise 6
def test_promise_6_extensions_are_bounded_together():
    chunk = b"1;" + b"a" * (SIZE_LINE - 2) + b"\r\nx\r\n"
    most = EXTENSIONS // SIZE_LINE
    assert decoder().feed(chunk * most) == b"x" * most
    with pytest.raises(BadRequest):
        decoder().feed(chunk * (most + 1))


def test_a_chunk_is_refused_by_its_size_before_any_of_it():
    one = decoder(max_body=5)
    assert one.feed(b"3\r\nabc\r\n") == b"abc"
    with pytest.raises(BodyTooLarge):
        one.feed(b"3\r\n")


def test_trailers_are_bounded():
    for trailer in (b"X: " + b"a" * 100, b"X: a\r\n" * 4, (b"X: " + b"a" * 50 + b"\r\n") * 3):
        one = decoder(max_line=64, max_header=128, max_fields=3)
        with pytest.raises(HeaderTooLarge):
            one.feed(b"0\r\n" + trailer)


def test_any_cut_gives_the_same():
    # Whole chunks take a shorter way than those that are cut.
    source = random.Random(7)
    for _ in range(300):
        parts = [source.randbytes(source.choice((1, 1, 2, 15, 16, 40))) for _ in range(5)]
        data = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\nnext"
        if source.random() < 0.5:
            place = source.randrange(len(data))
            data = data[:place] + source.choice((b"\n", b" ", b"x", b"0")) + data[place + 1 :]
        assert len({read(data, size) for size in (1, 2, 3, 7, 20, len(data))}) == 1


def read(data, size):
    """Body, rest and refusal, fed in segments of `size` bytes."""
    one, body = decoder(max_body=120), b""
    for start in range(0, len(data), size):
        segment = data[start : start + size]
        if one.rest is not None:
            one.rest += segment
            continue
        try:
            body += one.feed(segment)
        except Refusal as refusal:
            return type(refusal)
    return body, one.rest
