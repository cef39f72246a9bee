"""Text without the secrets in it: every command line, address and error that is shown.

What looks like a secret is hidden, rather too much of it than too little:

- in a URL what stands between user and ``@``, whatever characters it has, also where the whole is
  percent-encoded as a part of another URL;
- the value of ``password=``, ``token=`` and the like, in queries and variables, of the option
  ``--password``, and of ``-a`` of redis-cli;
- ``user:password`` as the value of ``auth=``, ``user=`` and the like;
- the arguments that Redis repeats where it does not know a command, which may be AUTH's.
"""

import re
from collections.abc import Sequence
from typing import Final

HIDDEN: Final = "***"

_NAME: Final = r"[\w.-]*(?:passw(?:or)?d|passwd|pwd|passphrase|secret|token|api[_-]?key)"
#: In a URL: the scheme, what names the user, and the rest up to the last ``@`` of the word. Who
#: took it for a path may have made one slash of the two, or taken off what comes before them.
_ENTERED: Final = re.compile(r"(?i)((?:\b[a-z][a-z0-9+.-]*:/|/)/?)([^\s:@/]*):(\S*)@")
_ENTERED_ENCODED: Final = re.compile(
    r"(?i)([a-z][a-z0-9+.-]*%3a(?:%2f%2f|//))((?:(?!%3a|%40)[^\s@:])*)(%3a|:)\S*(%40|@)"
)
#: Of a web page's address an ``@`` may stand in the path: then there are a port and a ``/`` before.
_WEB: Final = re.compile(r"(?i)https?://[^\s:/@]*:[0-9]{1,5}/")
_PATTERNS: Final = (
    (re.compile(rf"(?i)\b({_NAME}(?:=|%3d))[^\s&;,'\"#]+"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)([\"']{_NAME}[\"']\s*:\s*[\"'])[^\"']+"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)(--(?:{_NAME}|pass)[\s=]+)[^\s'\"]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b((?:redis|valkey)-cli\b.*?\s-a\s+)[^\s'\"]+"), rf"\1{HIDDEN}"),
    (
        re.compile(
            r"(?i)\b((?:[\w-]*auth|userinfo|credentials?|login|user(?:name)?)(?:=|%3d)"
            r"[^\s&:=/%]*(?::|%3a))[^\s&;'\"]+"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)(with args beginning with: ).*"), rf"\1{HIDDEN}"),
)
#: An option whose value is the next argument.
_SECRET_OPTION: Final = re.compile(rf"(?i)--(?:{_NAME}|pass)")
_CLIENT: Final = re.compile(r"(?i)(?:.*/)?(?:redis|valkey)-cli")


def redact(text: str) -> str:
    """`text` with ``***`` for each secret."""
    # Most texts have none of these.
    if "@" in text or "%" in text:
        text = _ENTERED.sub(_entered, text)
        text = _ENTERED_ENCODED.sub(rf"\1\2\3{HIDDEN}\4", text)
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text


def redact_command(argv: Sequence[str]) -> str:
    """A command line to be shown."""
    shown: list[str] = []
    for before, part in zip(("", *argv), argv, strict=False):
        secret = _SECRET_OPTION.fullmatch(before) is not None or (
            before == "-a" and _CLIENT.fullmatch(argv[0]) is not None
        )
        shown.append(HIDDEN if secret else redact(part))
    return " ".join(shown)


def _entered(found: re.Match[str]) -> str:
    if _WEB.match(found.group()):
        return found.group()
    return f"{found[1]}{found[2]}:{HIDDEN}@"
