"""Who the client is, as far as trusted proxies say so; and that nobody else can."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.http import forwarded
from queuerelay.http.forwarded import Trust, forwarded_elements, is_host
from queuerelay.wire.cgi import cgi_environment
from queuerelay.wire.message import Request
from queuerelay.wire.proxies import FORWARDED, X_FORWARDED
from queuerelay.wire.variables import field_variables
from queuerelay.worker.environ import environ_of

OURS = ("127.0.0.1", "10.0.0.0/8", "2001:db8:aa::/48")
HOST = (b"Host", [b"shop.example"])
#: Every field by which anybody could say who the client is.
FORGED = [
    (b"Forwarded", [b"for=6.6.6.6;proto=https;host=evil.example"]),
    (b"X-Forwarded-For", [b"6.6.6.6", b"6.6.6.7"]),
    (b"X-Forwarded-Proto", [b"https"]),
    (b"X-Forwarded-Host", [b"evil.example"]),
    (b"X-Forwarded-Port", [b"666"]),
    (b"X-Forwarded-Ssl", [b"on"]),
    (b"X-Forwarded-Prefix", [b"/evil"]),
    (b"X-Real-IP", [b"6.6.6.6"]),
    (b"X_Forwarded_For", [b"6.6.6.6"]),
    (b"x-forwarded_for", [b"6.6.6.6"]),
]

#: What a quoted-string can have (RFC 9110 5.6.4); C1 controls are obs-text.
QUOTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"))


def peer(address="127.0.0.1", *, scheme="http", networks=OURS, believed=X_FORWARDED):
    return Trust(networks, believed).peer(address, scheme)


def forward(fields, *, url="/", version="1.1", **how):
    return peer(**how).forward(fields, url, version)


def told(*fields, url="/", host=HOST, **how):
    """Address, scheme and host of the client, which all that is sent must agree upon."""
    headers, address, scheme = forward([host, *fields] if host else fields, url=url, **how)
    assert [text for name, text in headers if name == "x-forwarded-for"] == (
        [address] if address else []
    )
    assert [text for name, text in headers if name == "x-forwarded-proto"] == [scheme]
    hosts = [text for name, text in headers if name == "host"]
    assert [text for name, text in headers if name == "x-forwarded-host"] == hosts
    return address, scheme, *hosts


def x(name, *values):
    return (f"X-Forwarded-{name}".encode(), [value.encode() for value in values])


class TestUntrusted:
    def test_what_the_worker_is_told(self):
        fields = [(b"Accept", [b"a"]), HOST, (b"X-A", [b"1", b"2"])]
        assert forward(fields, address="192.0.2.7", scheme="https") == (
            [
                ("accept", "a"),
                ("host", "shop.example"),
                ("x-a", "1"),
                ("x-a", "2"),
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-proto", "https"),
                ("via", "1.1 queuerelay"),
                ("x-forwarded-host", "shop.example"),
            ],
            "192.0.2.7",
            "https",
        )

    @pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "", "not an address"])
    @pytest.mark.parametrize("believed", [X_FORWARDED, (FORWARDED,), ()])
    def test_it_cannot_say_who_it_is(self, address, believed):
        plain = forward([HOST], address=address, believed=believed)
        assert forward([*FORGED, HOST, *FORGED], address=address, believed=believed) == plain
        names = (name.decode() for name, _ in FORGED)
        connection = (b"Connection", [", ".join(["close", "host", "via", *names]).encode()])
        assert forward([connection, HOST], address=address, believed=believed) == plain

    def test_without_networks_nobody_is_trusted(self):
        for address in ("127.0.0.1", "::1", ""):
            assert told(*FORGED, address=address, networks=())[1:] == ("http", "shop.example")

    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:0DB8:0::7", "2001:db8::7"),
            ("fe80::1%eth0", "fe80::1%eth0"),
            # What Twisted takes from a PROXY line.
            ("evil", ""),
            ("1.2.3.4\n", ""),
            ("1.2.3", ""),
            ("", ""),
        ],
    )
    def test_its_address_in_the_usual_form(self, given, shown):
        assert told(address=given) == (shown, "http", "shop.example")

    def test_old_versions_and_no_host(self):
        headers, _, _ = forward([], address="192.0.2.7", version="1.0")
        assert headers == [
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "http"),
            ("via", "1.0 queuerelay"),
        ]
        headers, _, _ = forward([(b"Host", [b""])], version="2", address="192.0.2.7")
        assert ("host", "") in headers
        assert "x-forwarded-host" not in dict(headers)
        assert headers[-1] == ("via", "1.1 queuerelay")

    def test_via_of_others_comes_before_ours(self):
        headers, _, _ = forward([(b"Via", [b"1.0 a", b"1.1 b"])], address="192.0.2.7")
        assert [text for name, text in headers if name == "via"] == [
            "1.0 a",
            "1.1 b",
            "1.1 queuerelay",
        ]

    def test_one_request_changes_nothing_for_the_next_on_its_connection(self):
        one = peer("192.0.2.7")
        first = one.forward([HOST], "/", "1.1")
        one.forward([(b"Host", [b"other"])], "http://third/", "1.1")
        assert one.forward([HOST], "/", "1.1") == first

    @pytest.mark.parametrize("address", ["192.0.2.7", "127.0.0.1"])
    def test_the_host_of_an_absolute_target_overrules_all_others(self, address):
        fields = (x("For", "192.0.2.7"), x("Host", "proxied.example"))
        assert told(*fields, address=address, url="http://u@Else.example:81/a?b") == (
            "192.0.2.7",
            "http",
            "Else.example:81",
        )
        assert told(address="192.0.2.7", url="http://else", host=None)[2] == "else"
        assert told(address="192.0.2.7", url="*")[2] == "shop.example"


class TestTrust:
    @pytest.mark.parametrize(
        ("address", "trusted"),
        [
            ("127.0.0.1", True),
            ("::ffff:127.0.0.1", True),
            ("127.0.0.2", False),
            ("10.255.0.1", True),
            ("::ffff:10.1.1.1", True),
            ("11.0.0.1", False),
            ("2001:db8:aa:ffff::1", True),
            ("2001:db8:ab::1", False),
            ("::1", False),
            ("::10.0.0.1", False),
            ("", False),
            ("10.0.0.1 ", False),
        ],
    )
    def test_networks(self, address, trusted):
        assert peer(address).trusted is trusted
        assert Trust(OURS, ()).judge(address)[1] is trusted

    def test_unix_sockets_are_trusted_by_name(self):
        assert not peer("").trusted
        assert peer("", networks=("unix",)).trusted
        assert told(x("For", "192.0.2.7"), address="", networks=("unix",))[0] == "192.0.2.7"
        # What is no address is no Unix socket.
        assert not peer("evil", networks=("unix",)).trusted

    @pytest.mark.parametrize(
        ("networks", "fields"),
        [
            (("10.0.0.1/8",), X_FORWARDED),
            (("localhost",), X_FORWARDED),
            (("10.0.0.0/8",), (*X_FORWARDED, FORWARDED)),
            ((), ("x_real_ip",)),
            ((), ("host",)),
        ],
    )
    def test_refuses_what_it_cannot_mean(self, networks, fields):
        with pytest.raises(ValueError, match=r"."):
            Trust(networks, fields)

    def test_remembers_a_bounded_number_of_peers(self):
        trust = Trust(OURS, X_FORWARDED)
        for number in range(3 * forwarded._KNOWN):
            assert trust.judge(str(ip_address(number + 2**24)))[1] is (number + 2**24 >> 24 == 10)
        assert len(trust._known) <= forwarded._KNOWN
        assert trust.judge("10.1.2.3") == ("10.1.2.3", True)


class TestMemory:
    """Most clients come again, so what is said of them is remembered."""

    def test_it_is_bounded(self):
        trust = Trust(OURS, X_FORWARDED)
        one = trust.peer("127.0.0.1", "http")
        for number in range(2 * forwarded._KNOWN + 5):
            address = str(ip_address(number + 2**28))
            for _ in range(2):
                assert one.forward([x("For", address)], "/", "1.1")[1] == address
        assert 0 < len(trust._clients) <= forwarded._KNOWN
        before = len(trust._clients)
        long = ",".join(["10.0.0.1"] * 100)
        assert one.forward([x("For", f"192.0.2.7,{long}")], "/", "1.1")[1] == "10.0.0.1"
        assert len(trust._clients) == before

    def test_it_is_of_one_peer_scheme_version_and_word_alone(self):
        trust = Trust((*OURS, "unix"), X_FORWARDED)
        seen = {}
        for _ in range(2):
            for address in ("127.0.0.1", "10.0.0.1", ""):
                for scheme in ("http", "https"):
                    for version in ("1.0", "1.1"):
                        for said in ((), (x("Host", "a")), (x("Proto", "https"))):
                            one = trust.peer(address, scheme)
                            fields = [HOST, said] if said else [HOST]
                            key = (address, scheme, version, str(said))
                            got = one.forward(fields, "/", version)
                            assert seen.setdefault(key, got) == got
                            assert got[1] == address
                            assert got[2] == ("https" if "Proto" in str(said) else scheme)
                            assert ("via", f"{version} queuerelay") in got[0]
        # X-Forwarded-Proto says of http what https shows by itself.
        assert len({str(value) for value in seen.values()}) == 3 * 2 * 4

    def test_what_is_told_of_one_request_is_not_changed_by_another(self):
        one = peer()
        fields = [HOST, x("For", "192.0.2.7"), x("Host", "a.example")]
        first = one.forward(fields, "/", "1.1")
        copy = list(first[0])
        one.forward([*fields, (b"X-A", [b"b"])], "http://third/", "1.1")
        first[0].append(("x", "y"))
        assert one.forward(fields, "/", "1.1")[0] == copy


class TestXForwarded:
    @pytest.mark.parametrize(
        ("values", "client"),
        [
            ([], "127.0.0.1"),
            ([""], "127.0.0.1"),
            ([" , "], "127.0.0.1"),
            (["192.0.2.7"], "192.0.2.7"),
            (["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
            (["6.6.6.6", "192.0.2.7"], "192.0.2.7"),
            (["6.6.6.6,192.0.2.7,\t10.0.0.1 ,, 10.0.0.2"], "192.0.2.7"),
            (["6.6.6.6,192.0.2.7", "10.0.0.1", " 2001:db8:aa::1 "], "192.0.2.7"),
            # Nobody but proxies: the first of them asked by itself.
            (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (["2001:DB8:0:0::7"], "2001:db8::7"),
            (["[2001:db8::7]"], "2001:db8::7"),
            (["[2001:db8::7]:4711"], "2001:db8::7"),
            (["192.0.2.7:4711"], "192.0.2.7"),
            (["::ffff:192.0.2.7"], "192.0.2.7"),
            (["6.6.6.6, ::ffff:10.0.0.1"], "6.6.6.6"),
        ],
    )
    def test_the_rightmost_hop_that_is_not_trusted(self, values, client):
        assert told(x("For", *values))[0] == client

    @pytest.mark.parametrize(
        "hop",
        [
            "unknown",
            "_hidden",
            "unix:",
            "evil",
            "192.0.2.7:",
            "192.0.2.7:123456",
            "192.0.2.007",
            "192.0.2",
            "192.0.2.256",
            "3221225991",
            "0xc0000207",
            "192.0.2.7/32",
            '"192.0.2.7"',
            "[192.0.2.7]",
            "2001:db8::7%eth0",
            "[2001:db8::7",
            "2001:db8::7]",
            "[2001:db8::7]4",
            ":::",
            "1:2:3:4:5:6:7",
            "192.0.2.7 192.0.2.8",
            "192.0.2.7;",
            "\xa0192.0.2.7",
            "\u0661",
        ],
    )
    def test_where_it_cannot_be_known_there_is_none(self, hop):
        hops = f"6.6.6.6, {hop}, 10.0.0.1"
        field = (b"X-Forwarded-For", [hops.encode("utf-8")])
        assert told(field) == ("", "http", "shop.example")

    @pytest.mark.parametrize(
        ("hops", "schemes", "hosts", "client"),
        [
            # One proxy.
            ("192.0.2.7", "https", "a.example", ("192.0.2.7", "https", "a.example")),
            ("192.0.2.7", "HTTP", "a.example:81", ("192.0.2.7", "http", "a.example:81")),
            ("6.6.6.6,192.0.2.7", "https,http", "evil,a", ("192.0.2.7", "http", "a")),
            # Two, both of which add to the lists.
            ("192.0.2.7,10.0.0.1", "https,http", "a,b", ("192.0.2.7", "https", "a")),
            (
                "6.6.6.6,192.0.2.7,10.0.0.1",
                "http,https,http",
                "evil,a,b",
                ("192.0.2.7", "https", "a"),
            ),
            # Two, each of which replaces what it got, or leaves it.
            ("192.0.2.7,10.0.0.1", "https", "a", ("192.0.2.7", "https", "a")),
            # No address, but the rest.
            ("", "https", "a", ("127.0.0.1", "https", "a")),
            ("unknown", "https", "a", ("", "https", "a")),
            # Malformed.
            ("192.0.2.7", "wss", "a b", ("192.0.2.7", "http", "shop.example")),
            ("192.0.2.7", "http;", "a/b", ("192.0.2.7", "http", "shop.example")),
            ("192.0.2.7", "https,", ",", ("192.0.2.7", "https", "shop.example")),
        ],
    )
    def test_scheme_and_host_of_the_same_hop(self, hops, schemes, hosts, client):
        assert told(x("For", hops), x("Proto", schemes), x("Host", hosts)) == client

    @pytest.mark.parametrize(
        ("host", "scheme", "port", "expected"),
        [
            (None, "https", "8443", "shop.example:8443"),
            (None, "https", "443", "shop.example"),
            (None, "https", "80", "shop.example:80"),
            (None, "http", "80", "shop.example"),
            ("a.example", "http", "8000", "a.example:8000"),
            ("a.example:1", "http", "8000", "a.example:1"),
            ("[::1]", "http", "8000", "[::1]:8000"),
            *((None, "http", port, "shop.example") for port in ("", "0", "65536", "1x", "-1")),
            *((None, "http", port, "shop.example") for port in ("1e3", "\u0661", "08000")),
        ],
    )
    def test_port(self, host, scheme, port, expected):
        fields = [x("For", "192.0.2.7"), x("Proto", scheme), x("Port", port)]
        fields += [x("Host", host)] if host is not None else []
        assert told(*fields)[2] == expected
        assert told(*fields, believed=X_FORWARDED[:3])[2] == (host or "shop.example")

    def test_a_port_without_any_host(self):
        headers, _, _ = forward([x("For", "192.0.2.7"), x("Port", "8000")])
        assert "host" not in dict(headers)
        headers, _, _ = forward([(b"Host", [b"no host!"]), x("Port", "8000")])
        assert ("host", "no host!") in headers

    def test_only_what_its_proxies_write_is_believed_of_them(self):
        """A proxy leaves what it does not know, such as what a client made up."""
        hop = x("For", "192.0.2.7")
        for believed in (("x-forwarded-for",), ("x-forwarded-for", "x-forwarded-port")):
            assert told(hop, x("Host", "evil"), x("Proto", "https"), believed=believed) == (
                "192.0.2.7",
                "http",
                "shop.example",
            )
        made_up = (b"Forwarded", [b"for=6.6.6.6;proto=https;host=evil"])
        assert told(hop, made_up) == ("192.0.2.7", "http", "shop.example")
        assert told(made_up) == ("127.0.0.1", "http", "shop.example")
        made_up = [x("For", "6.6.6.6"), x("Proto", "https"), x("Host", "evil")]
        assert told(*made_up, believed=(FORWARDED,)) == ("127.0.0.1", "http", "shop.example")

    def test_the_host_keeps_its_place(self):
        headers, _, _ = forward(
            [(b"A", [b"1"]), (b"Host", [b"b", b"c"]), (b"D", [b"1"]), x("Host", "a.example")]
        )
        assert headers[:3] == [("a", "1"), ("host", "a.example"), ("d", "1")]
        headers, _, _ = forward([(b"A", [b"1"]), x("Host", "a.example")])
        assert headers[:2] == [("a", "1"), ("host", "a.example")]

    def test_a_client_cannot_take_away_what_its_proxy_adds(self):
        """haproxy passes a client's Connection on."""
        fields = [
            HOST,
            (b"Connection", [b"keep-alive, X-User, X-Forwarded-For, TE"]),
            (b"X-User", [b"nobody"]),
            (b"TE", [b"trailers"]),
            x("For", "192.0.2.7"),
        ]
        headers, address, _ = forward(fields)
        assert (headers[:2], address) == (
            [("host", "shop.example"), ("x-user", "nobody")],
            "192.0.2.7",
        )
        assert {"te", "connection"}.isdisjoint(dict(headers))
        headers, _, _ = forward(fields, address="192.0.2.7")
        assert "x-user" not in dict(headers)

    def test_a_chain_without_an_end(self):
        """No more than what real chains have is looked at."""
        hops = ["192.0.2.7", *["10.0.0.1"] * 3000]
        assert told(x("For", ",".join(hops)))[0] == "10.0.0.1"
        hops = ["for=6.6.6.6"] * 100 + ["for=192.0.2.7", "for=10.0.0.1"]
        field = (b"Forwarded", [",".join(hops).encode()])
        assert told(field, believed=(FORWARDED,))[0] == "192.0.2.7"


class TestForwarded:
    @pytest.mark.parametrize(
        ("lines", "client"),
        [
            (["for=192.0.2.7"], ("192.0.2.7", "http", "shop.example")),
            (
                ["for=192.0.2.7;proto=https;host=a.example"],
                ("192.0.2.7", "https", "a.example"),
            ),
            (
                ['For="192.0.2.7:4711"; PROTO=HTTPS; by=_p; hOsT="a.example:81"'],
                ("192.0.2.7", "https", "a.example:81"),
            ),
            (['for="[2001:db8::7]"'], ("2001:db8::7", "http", "shop.example")),
            (['for="[2001:db8::7]:_x.y"'], ("2001:db8::7", "http", "shop.example")),
            (['for="[2001\\:db8::\\7]:4711"'], ("2001:db8::7", "http", "shop.example")),
            # The hop's own word, and that of the one before it.
            (
                ["for=6.6.6.6;proto=https;host=evil, for=192.0.2.7;proto=http;host=a"],
                ("192.0.2.7", "http", "a"),
            ),
            (
                ["for=192.0.2.7;proto=https;host=a", "for=10.0.0.1;proto=http;host=b"],
                ("192.0.2.7", "https", "a"),
            ),
            (
                ["for=192.0.2.7 , ,,for=10.0.0.1;proto=https;host=b"],
                ("192.0.2.7", "http", "shop.example"),
            ),
            (["for=10.0.0.2, for=10.0.0.1"], ("10.0.0.2", "http", "shop.example")),
            # Nothing, nobody, hidden.
            ([""], ("127.0.0.1", "http", "shop.example")),
            ([" , ;, "], ("127.0.0.1", "http", "shop.example")),
            (["for=unknown;proto=https"], ("", "https", "shop.example")),
            (["for=6.6.6.6, for=_hidden;host=a"], ("", "http", "a")),
            (["for=6.6.6.6, proto=https"], ("", "https", "shop.example")),
            # Malformed: not even what stands beside it.
            (["for=192.0.2.7;proto=https;"], ("192.0.2.7", "https", "shop.example")),
            (["for=192.0.2.7:80;proto=https"], ("", "http", "shop.example")),
            (["for=192.0.2.7;proto=https;proto=http"], ("", "http", "shop.example")),
            (["for=192.0.2.7;For=6.6.6.6"], ("", "http", "shop.example")),
            (["for = 192.0.2.7"], ("", "http", "shop.example")),
            (["for=192.0.2.7 proto=https"], ("", "http", "shop.example")),
            (["for="], ("", "http", "shop.example")),
            (['for="192.0.2.7'], ("", "http", "shop.example")),
            (["192.0.2.7"], ("", "http", "shop.example")),
            (['for="192.0.2.7\\"'], ("", "http", "shop.example")),
            (['for="2001:db8::7"'], ("", "http", "shop.example")),
            (["for=192.0.2.7;proto=ftp;host=a b"], ("", "http", "shop.example")),
            (['for=192.0.2.7;proto=ftp;host="a b"'], ("192.0.2.7", "http", "shop.example")),
            # A client's open quote, before a proxy that adds to its line, or a line.
            (['for="6.6.6.6, for=192.0.2.7;by="x"'], ("", "http", "shop.example")),
            (['for="', "for=192.0.2.7"], ("192.0.2.7", "http", "shop.example")),
            (['for="', "for=10.0.0.1"], ("", "http", "shop.example")),
        ],
    )
    def test_the_rightmost_hop_that_is_not_trusted(self, lines, client):
        field = (b"Forwarded", [line.encode() for line in lines])
        assert told(field, believed=(FORWARDED,)) == client

    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(["for", "by", "host", "proto", "x-ext"]),
                st.text(
                    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f")
                ),
                min_size=1,
            ),
            min_size=1,
        )
    )
    def test_any_value_survives_being_quoted(self, elements):
        def quoted(text):
            return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

        line = ", ".join(
            ";".join(f"{name}={quoted(text)}" for name, text in element.items())
            for element in elements
        )
        assert forwarded_elements(line) == elements

    @given(st.text(st.sampled_from('for=by;host, "\\[:]_.1a\t\x80')))
    def test_what_a_proxy_adds_in_a_line_of_its_own_decides(self, line):
        field = (b"Forwarded", [line.encode("latin-1"), b"for=192.0.2.7;proto=https"])
        assert told(field, believed=(FORWARDED,)) == ("192.0.2.7", "https", "shop.example")

    @given(st.text(st.sampled_from('for=by;host, "\\[:]_.1a\t\x80')))
    def test_whatever_stands_before_it_in_its_line_cannot_change_it(self, line):
        """Only spoil it: a client that leaves a quote open has no address."""
        added = 'for="192.0.2.7:1";proto=https;host="shop.example"'
        field = (b"Forwarded", [f"{line}, {added}".encode("latin-1")])
        seen = told(field, believed=(FORWARDED,))
        assert seen in [
            ("192.0.2.7", "https", "shop.example"),
            ("", "http", "shop.example"),
        ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([name for name, _ in FORGED] + [b"Connection", b"Via", b"X-A"]),
            st.lists(st.binary(max_size=30), min_size=1, max_size=3),
        )
    ),
    st.sampled_from([X_FORWARDED, (FORWARDED,)]),
)
def test_a_client_behind_a_trusted_proxy_cannot_forge_either(fields, believed):
    """Whatever it sends, and in whatever order, the proxy adds what it knows at the end."""
    if believed == X_FORWARDED:
        added = [
            x("For", "192.0.2.7"),
            x("Proto", "http"),
            x("Host", "shop.example"),
            x("Port", "80"),
        ]
    else:
        added = [(b"Forwarded", [b"for=192.0.2.7;proto=http;host=shop.example"])]
    assert told(*fields, *added, believed=believed) == ("192.0.2.7", "http", "shop.example")


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("a", True),
        ("a.example:80", True),
        ("A-1_~.example", True),
        ("192.0.2.7", True),
        ("[::1]", True),
        ("[::1]:65535", True),
        *((text, False) for text in ("", ":80", "a:", "a:65536", "a:123456", "a:b", "a b", "a/b")),
        *(
            (text, False)
            for text in ("u@a", "a,b", "a\n", "é", "[::1", "::1", "a%00", "a;b", "[g]")
        ),
        ("a" * 299, True),
        ("a" * 300, False),
    ],
)
def test_hosts(text, valid):
    assert is_host(text) is valid


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_cgi_and_wsgi_show_the_same_client(scheme):
    headers, address, seen = forward(
        [
            HOST,
            *FORGED[-2:],
            x("For", "6.6.6.6, 192.0.2.7"),
            x("Proto", f"https, {scheme}"),
            x("Host", "evil.example, front.example:8080"),
        ]
    )
    request = Request(
        node_id="x",
        url="/",
        method="GET",
        http_version="1.1",
        headers=headers,
        body=b"",
        remote_addr=address,
        scheme=seen,
        reply_to="x",
        accepted_at=0.0,
        deadline=1.0,
    )
    expected = {
        "REMOTE_ADDR": "192.0.2.7",
        "HTTP_HOST": "front.example:8080",
        "SERVER_NAME": "front.example",
        "SERVER_PORT": "8080",
        "HTTP_X_FORWARDED_FOR": "192.0.2.7",
        "HTTP_X_FORWARDED_PROTO": scheme,
        "HTTP_X_FORWARDED_HOST": "front.example:8080",
        "HTTP_VIA": "1.1 queuerelay",
        **({"HTTPS": "on"} if scheme == "https" else {}),
    }
    wsgi = environ_of(request, queue="q")
    cgi = {
        name.decode(): value.decode("latin-1") for name, value in cgi_environment(request).items()
    }
    for environment in (wsgi, cgi):
        assert {name: environment.get(name) for name in expected} == expected
        assert ("HTTPS" in environment) is (scheme == "https")
        assert not [name for name in environment if "6.6.6.6" in str(environment[name])]
        assert not [name for name in environment if "evil" in str(environment[name])]


class TestFurther:
    """Further fields that the operator has named."""

    NAMED = (*X_FORWARDED[:3], "x-forwarded-user", "x-auth-email", "x-real-ip")
    FIELDS = (
        HOST,
        (b"X-Forwarded-User", [b"ann"]),
        (b"X-AUTH-Email", [b"a@example", b"\xe9"]),
        (b"X-Real-IP", [b"6.6.6.6"]),
        (b"X-Forwarded-Groups", [b"not named"]),
        (b"X_Forwarded_User", [b"eve"]),
        (b"X-Forwarded_User", [b"eve"]),
        (b"X_AUTH-EMAIL", [b"eve"]),
        (b"X-Other", [b"1"]),
    )

    def test_a_trusted_proxys_pass(self):
        headers, address, _ = forward(self.FIELDS, believed=self.NAMED)
        assert sorted(headers) == sorted(
            [
                ("host", "shop.example"),
                ("x-auth-email", "a@example"),
                ("x-auth-email", "\xe9"),
                ("x-other", "1"),
                ("x-forwarded-user", "ann"),
                ("x-real-ip", "6.6.6.6"),
                ("x-forwarded-for", "127.0.0.1"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "shop.example"),
                ("via", "1.1 queuerelay"),
            ]
        )
        # That is what the proxy says to workers, not who the client is for us.
        assert address == "127.0.0.1"

    @pytest.mark.parametrize("address", ["192.0.2.1", ""])
    def test_nobody_elses_pass_in_any_spelling(self, address):
        headers, _, _ = forward(self.FIELDS, believed=self.NAMED, address=address)
        assert {name for name, _ in headers} <= {
            *("host", "via", "x-other", "x-forwarded-for", "x-forwarded-proto"),
            "x-forwarded-host",
        }
        variables = cgi(headers)
        assert "eve" not in variables.values()
        assert "ann" not in variables.values()

    def test_a_client_cannot_take_them_away(self):
        fields = [*self.FIELDS, (b"Connection", [b"x-forwarded-user, x-auth-email"])]
        headers, _, _ = forward(fields, believed=self.NAMED)
        assert ("x-forwarded-user", "ann") in headers
        assert ("x-auth-email", "a@example") in headers

    def test_without_being_named_they_are_as_before(self):
        headers, _, _ = forward(self.FIELDS)
        assert "x-forwarded-user" not in dict(headers)
        assert ("x-auth-email", "a@example") in headers

    def test_workers_see_them(self):
        headers, _, _ = forward(self.FIELDS, believed=self.NAMED)
        assert cgi(headers)["HTTP_X_FORWARDED_USER"] == "ann"


def cgi(headers):
    """What a script gets."""
    return field_variables(headers)
