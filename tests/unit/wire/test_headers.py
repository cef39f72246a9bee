import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.errors import ReplyError
from queuerelay.wire import headers
from queuerelay.wire.headers import connection_options, is_token, reply_headers, request_headers

TOKEN = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters
NEVER = [
    "Connection",
    "Content-Length",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
]

#: Names that are free to cross, and values of all bytes that a field may have (RFC 9110 5.5).
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789.~", min_size=1).map("x-".__add__)
values = st.binary().map(
    lambda raw: bytes(byte for byte in raw if byte == 9 or 32 <= byte != 127).strip(b" \t")
)


@given(
    st.lists(st.tuples(names, st.lists(values, min_size=1, max_size=3)), unique_by=lambda f: f[0])
)
def test_any_bytes_survive_both_ways(fields):
    crossed = request_headers([(name.title().encode(), texts) for name, texts in fields])
    assert crossed == [(name, text.decode("latin-1")) for name, texts in fields for text in texts]
    back, declared = reply_headers([list(pair) for pair in crossed])
    assert back == [(name.encode(), text) for name, texts in fields for text in texts]
    assert declared is None


class TestRequest:
    def test_order_and_repetition_are_kept(self):
        assert request_headers([(b"B", [b"1", b"2"]), (b"A", [b"\xe9"]), (b"C", [b""])]) == [
            ("b", "1"),
            ("b", "2"),
            ("a", "é"),
            ("c", ""),
        ]

    @pytest.mark.parametrize("name", [*NEVER, "Expect"])
    def test_fields_of_the_connection_stay_behind(self, name):
        for spelled in (name, name.lower(), name.upper()):
            assert request_headers([(spelled.encode(), [b"x"]), (b"A", [b"b"])]) == [("a", "b")]

    def test_proxy_is_dropped(self):
        """It would be HTTP_PROXY in CGI and WSGI."""
        assert request_headers([(b"Proxy", [b"http://evil"]), (b"X-A", [b"b"])]) == [("x-a", "b")]

    def test_names_with_an_underscore_are_dropped(self):
        assert request_headers([(b"X_Forwarded_For", [b"::1"]), (b"X-A", [b"b"])]) == [("x-a", "b")]

    def test_fields_that_connection_names_stay_behind(self):
        fields = [
            (b"X-One", [b"1"]),
            (b"Connection", [b"close, X-ONE", b"x-two ,"]),
            (b"X-Two", [b"2"]),
            (b"X-Three", [b"3"]),
            (b"CONNECTION", [b"x-four"]),
            (b"X-Four", [b"4"]),
        ]
        assert request_headers(fields) == [("x-three", "3")]

    @pytest.mark.parametrize(
        "name",
        [
            *("Forwarded", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"),
            *("X-Forwarded-Port", "X-Forwarded-Ssl", "X-Forwarded-Scheme", "X-Forwarded-"),
        ],
    )
    def test_who_the_client_is_nobody_says_here(self, name):
        for spelled in (name, name.lower(), name.upper(), name.replace("-", "_")):
            assert request_headers([(spelled.encode(), [b"::1"]), (b"A", [b"b"])]) == [("a", "b")]

    @pytest.mark.parametrize(
        "name",
        [
            *("Host", "Authorization", "Cookie", "Content-Type", "Content-Encoding", "Origin"),
            *("Cache-Control", "Range", "Via", "X-Request-Id"),
        ],
    )
    def test_connection_takes_nothing_away_that_is_for_everybody(self, name):
        fields = [
            (b"Connection", [f"close, {name}, X-A".encode()]),
            (name.encode(), [b"1"]),
            (b"X-A", [b"2"]),
        ]
        assert request_headers(fields) == [(name.lower(), "1")]

    def test_foreign_names_do_not_fill_the_memory(self):
        for number in range(3000):
            name = b"X-Made-Up-%d" % number
            assert request_headers([(name, [b""])]) == [(name.decode().lower(), "")]
        long = b"X-" + b"y" * 5000
        assert request_headers([(long, [b""])]) == [(long.decode().lower(), "")]
        assert len(headers._names) <= 1024
        assert long not in headers._names


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ([b"close"], {"close"}),
        ([b"Keep-Alive , X-A", b"\tx-b"], {"keep-alive", "x-a", "x-b"}),
        ([b",, ,"], set()),
        ([], set()),
    ],
)
def test_connection_options(given, options):
    assert connection_options(given) == options


@given(st.text())
def test_token_is_what_the_rfc_says(text):
    assert is_token(text) == (text != "" and set(text) <= set(TOKEN))


class TestReply:
    def test_object_form(self):
        value = {"Content-Type": "text/html", "Set-Cookie": ["a=1", "b=2"], "X-Empty": []}
        assert reply_headers(value) == (
            [(b"Content-Type", b"text/html"), (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")],
            None,
        )

    def test_pairs_keep_order_and_repetition(self):
        value = [["Set-Cookie", "b=2"], ["A", "1"], ["Set-Cookie", "a=1"]]
        assert reply_headers(value) == (
            [(b"Set-Cookie", b"b=2"), (b"A", b"1"), (b"Set-Cookie", b"a=1")],
            None,
        )

    @pytest.mark.parametrize("value", [[], {}])
    def test_none_at_all(self, value):
        assert reply_headers(value) == ([], None)

    @pytest.mark.parametrize("name", NEVER)
    def test_framing_and_the_connection_are_ours(self, name):
        for spelled in (name, name.lower(), name.upper()):
            assert reply_headers([[spelled, "x"], ["A", "b"]]) == ([(b"A", b"b")], None)
            assert reply_headers({spelled: "x", "A": "b"}) == ([(b"A", b"b")], None)

    def test_fields_that_connection_names_stay_behind(self):
        value = [["X-A", "1"], ["Connection", "x-a"], ["X-B", "2"], ["connection", "close, X-B"]]
        assert reply_headers([*value, ["X-C", "3"]]) == ([(b"X-C", b"3")], None)

    @pytest.mark.parametrize(
        ("text", "declared"),
        [
            ("0", 0),
            ("1234", 1234),
            ("9" * 18, 10**18 - 1),
            ("9" * 5000, None),
            ("-1", None),
            ("+1", None),
            ("1, 1", None),
            ("0x10", None),
            ("1_0", None),
            ("\u0661", None),
            ("", None),
            (" 12\t", 12),
            (12, 12),
            (-12, None),
            (10**18, None),
            (["5", "5"], 5),
            (["5", 5], 5),
            (["5", "6"], None),
            (["5", "x", "5"], None),
            # What JSON has beyond 64 bits, and with a fraction.
            (1e300, None),
            (12.0, None),
        ],
    )
    def test_declared_length(self, text, declared):
        assert reply_headers({"Content-Length": text}) == ([], declared)

    def test_value_is_trimmed(self):
        assert reply_headers({"A": " \tb c\t "}) == ([(b"A", b"b c")], None)

    @pytest.mark.parametrize("code", [*range(0x20), 0x7F])
    def test_control_in_a_value(self, code):
        value = {"X-A": f"b{chr(code)}c"}
        if code == 0x09:
            assert reply_headers(value) == ([(b"X-A", b"b\tc")], None)
            return
        with pytest.raises(ReplyError, match="header 'X-A' has a control character in its value"):
            reply_headers(value)

    @pytest.mark.parametrize("text", ["a\r\nSet-Cookie: b=c", "a\n", "\r"])
    def test_response_splitting(self, text):
        for name in ("X-A", "Content-Length", "Connection"):
            with pytest.raises(ReplyError, match="control character"):
                reply_headers([[name, text]])

    @pytest.mark.parametrize("name", ["", " A", "A ", "A:", "A\r\nB", "A\0", "É", "A\u2028", "(A)"])
    def test_name_that_is_not_a_token(self, name):
        for value in ({name: "b"}, [[name, "b"]]):
            with pytest.raises(ReplyError, match=r"is not a token \(RFC 9110 5\.1\)") as caught:
                reply_headers(value)
            assert "\n" not in str(caught.value)
            assert "\r" not in str(caught.value)

    @pytest.mark.parametrize("text", ["☃", "Ā", "\u2028"])
    def test_value_outside_latin_1(self, text):
        with pytest.raises(ReplyError, match="'X-A' has characters outside ISO-8859-1"):
            reply_headers({"X-A": text})

    def test_whole_numbers_are_written_as_text(self):
        """As Node's workers give them, and its own server takes them."""
        assert reply_headers([["Age", 12], ["Content-Length", 5]]) == ([(b"Age", b"12")], 5)
        assert reply_headers({"Age": 12, "X": ["a", 1]}) == (
            [(b"Age", b"12"), (b"X", b"a"), (b"X", b"1")],
            None,
        )

    def test_unicode_in_connection_is_no_crash(self):
        assert reply_headers([["Connection", "☃"], ["A", "b"]]) == ([(b"A", b"b")], None)

    @pytest.mark.parametrize(
        ("value", "error"),
        [
            (None, "headers: expected a list or an object, got NoneType"),
            ("A: b", "headers: expected a list or an object, got str"),
            (1, "headers: expected a list or an object, got int"),
            (["A: b"], "headers: expected [name, value] pairs"),
            ([["A"]], "headers: expected [name, value] pairs"),
            ([["A", "b", "c"]], "headers: expected [name, value] pairs"),
            ([[1, "b"]], "headers: expected [name, value] pairs"),
            ([{"A": "b"}], "headers: expected [name, value] pairs"),
            ([["A", 1.5]], "header 'A': expected a text, got float"),
            ([["A", ["b"]]], "header 'A': expected a text, got list"),
            ({"A": True}, "header 'A': expected a text, got bool"),
            ({"A": None}, "header 'A': expected a text, got NoneType"),
            ({"A": ["b", 1.5]}, "header 'A': expected a text, got float"),
            ({"A": {"b": "c"}}, "header 'A': expected a text, got dict"),
        ],
    )
    def test_says_what_is_wrong(self, value, error):
        with pytest.raises(ReplyError) as caught:
            reply_headers(value)
        assert str(caught.value) == f"a worker's reply cannot be understood: {error}"

    def test_error_about_a_long_name_is_short(self):
        with pytest.raises(ReplyError) as caught:
            reply_headers({"(" * 100_000: "b"})
        assert len(str(caught.value)) < 200
