"""Who may do what, from a file: one credential a line, ``#`` for comments.

    bearer NAME TOKEN               Authorization: Bearer TOKEN (RFC 6750), for programs
    basic NAME PASSWORD             Authorization: Basic ... (RFC 7617), for people with a browser
    bearer:submit,read NAME TOKEN   the same, for nothing but these scopes

The file is read again when it has changed; where it then cannot be read, or is wrong, what it said
before stays in force. Where it then has no credential any more, nobody may. Comparing takes as
long for a wrong secret as for a right one, whatever is wrong in it.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twisted.logger import Logger

from queuerelay.errors import ConfigError

#: Shortest secret, in characters: others are guessed.
SHORTEST: Final = 12
#: Most bytes of the file.
_LARGEST: Final = 64 * 1024
_OPTION: Final = "--status-credentials"
#: A token as it can stand after "Bearer".
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_EXPECTED: Final = "lines of: bearer NAME TOKEN, or basic NAME PASSWORD"
#: What a credential may be good for.
READ: Final = "read"
OPERATE: Final = "operate"
SUBMIT: Final = "submit"
#: All of it, as a credential without scopes has it.
SCOPES: Final = frozenset({READ, OPERATE, SUBMIT})


@dataclass(frozen=True, slots=True)
class Credential:
    """The holder of a credential, and what it is good for."""

    name: str
    scopes: frozenset[str] = SCOPES


class Credentials:
    """The credentials in the file `path`; `ConfigError` where it cannot be read or is wrong."""

    _log = Logger()

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._signature = _signature(self._path)
        self._known = _read(self._path)
        if not self._known:
            raise ConfigError.of(_OPTION, path, _EXPECTED)
        if _open_to_others(self._path):
            self._log.warn("{path} can be read or written by others", path=path)

    def who(self, authorization: str) -> Credential | None:
        """The holder for an ``Authorization`` field, None where there is none."""
        self._refresh()
        scheme, _, secret = authorization.strip().partition(" ")
        given = _digest(scheme.lower(), _plain(scheme.lower(), secret.strip()))
        found = None
        for digest, credential in self._known.items():
            if hmac.compare_digest(digest, given):
                found = credential
        return found

    def _refresh(self) -> None:
        signature = _signature(self._path)
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._known = _read(self._path)
        except ConfigError as error:
            self._log.error("the credentials stay as they were: {reason}", reason=str(error))


def check_credentials(path: str) -> None:
    """Raise `ConfigError` where the file `path` cannot be read or is wrong, and for a mode of which
    a start only warns.
    """
    Credentials(path)
    if _open_to_others(Path(path)):
        raise ConfigError.of(_OPTION, path, "a file that others can neither read nor write: 0600")


def _open_to_others(path: Path) -> bool:
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP)


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> dict[bytes, Credential]:
    """The credentials in the file, by the digest of the secret of each."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            # To open a pipe waits until somebody writes.
            raise ConfigError.of(_OPTION, os.fspath(path), "a regular file")
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        text = content.decode("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError.of(_OPTION, os.fspath(path), f"a readable file ({reason})") from error
    if len(content) > _LARGEST:
        raise ConfigError.of(_OPTION, os.fspath(path), f"a file of at most {_LARGEST} bytes")
    known: dict[bytes, Credential] = {}
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split(maxsplit=2)
        if not parts or parts[0].startswith("#"):
            continue
        # What a line says is secret, so the error names its number.
        where = f"{path}, line {number}"
        scheme, colon, scopes = parts[0].partition(":")
        if len(parts) != 3 or scheme not in ("bearer", "basic") or ":" in parts[1]:
            raise ConfigError.of(_OPTION, where, _EXPECTED)
        wanted = frozenset(scopes.split(",")) if colon else SCOPES
        if not wanted <= SCOPES:
            raise ConfigError.of(_OPTION, where, f"scopes of {', '.join(sorted(SCOPES))}")
        name, secret = parts[1], parts[2].rstrip()
        if scheme == "bearer" and _TOKEN.fullmatch(secret) is None:
            raise ConfigError.of(_OPTION, where, "a token without blanks, of ASCII alone")
        if len(secret) < SHORTEST:
            raise ConfigError.of(_OPTION, where, f"a secret of at least {SHORTEST} characters")
        plain = secret if scheme == "bearer" else f"{name}:{secret}"
        known[_digest(scheme, plain)] = Credential(name, wanted)
    return known


def _plain(scheme: str, secret: str) -> str:
    """A secret as text; RFC 7617 2 says how name and password stand in the field."""
    if scheme != "basic":
        return secret
    try:
        return base64.b64decode(secret, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return ""


def _digest(scheme: str, plain: str) -> bytes:
    return hashlib.sha256(f"{scheme} {plain}".encode("utf-8", "surrogatepass")).digest()
