"""What a browser sends: ten header fields, ``Host`` among them."""

#: All but ``Host``, which each client writes itself. A request with one field flatters: parsing and
#: passing on the others is a third of a relayed request's cost.
FIELDS = (
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/141.0.0.0 Safari/537.36",
    ),
    (
        "Accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
        "*/*;q=0.8",
    ),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "en-GB,en;q=0.9,de;q=0.8"),
    ("Cookie", "session=MTc2Mzc3NjAwMHxhYmNkZWZnaGlqa2xtbm9w; theme=dark; consent=necessary"),
    ("Referer", "http://127.0.0.1/things/?page=2"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
)


def request(target: str) -> bytes:
    """One GET for `target`, as HTTP/1.1 has it."""
    lines = [f"GET {target} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in FIELDS]
    return "\r\n".join([*lines, "", ""]).encode("ascii")
