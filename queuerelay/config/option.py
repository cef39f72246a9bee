"""The shape of an option: one entry of `options`, and what file and command line make of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from queuerelay.config.shape import Config
from queuerelay.config.values import Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting, in the file and on the command line."""

    #: Name on the command line, without the leading dashes.
    name: str
    #: What the setting does, without unit and default.
    help: str
    #: Reader that makes a value of the command line's text.
    type: Callable[[str], object] = str
    #: The check, which raises `ConfigError` or gives the value to keep.
    check: Check
    #: Table of the file in which the setting stands, "" for the top.
    table: str = "relay"
    #: Unit of the value; "" where it has none.
    unit: str = ""
    #: The default in words; "" where it is a plain value.
    otherwise: str = ""
    #: Whether the option may be given more than once.
    repeatable: bool = False
    #: Whether the option's text has several values, with commas between them.
    separated: bool = False
    #: Whether the setting is a limit that the start log shows.
    limit: bool = False
    #: Key in the file, where that is not the name.
    named: str = ""

    @property
    def key(self) -> str:
        """The setting's key in the file and its field in the record."""
        return self.named or self.name.replace("-", "_")

    @property
    def dotted(self) -> str:
        """The setting's full name in the file, as errors show it."""
        return f"{self.table}.{self.key}" if self.table else self.key

    @property
    def default(self) -> Any:
        """The default of the setting; None for "off"."""
        if self.table == "pool":
            return None
        config = Config()
        part = {
            "": config,
            "relay": config.relay,
            "status": config.status,
            "failed": config.failed,
        }[self.table]
        return getattr(part, self.key)

    def parse(self, given: object) -> object:
        """The value for the command line's text; a text that cannot be read stays text, and
        `check` refuses it.
        """
        if self.repeatable:
            return given if isinstance(given, list) else [given]
        if self.separated:
            return given.split(",") if isinstance(given, str) else given
        # Python refuses numbers of thousands of digits, and takes "1_000", in ways of its own.
        if not isinstance(given, str) or len(given) > 32 or "_" in given:
            return given
        try:
            return self.type(given)
        except ValueError:
            return given

    @property
    def described(self) -> str:
        """The setting's help with unit and default, as ``--help`` shows it."""
        default = self.default
        if self.repeatable:
            default = ", ".join(default)
        if isinstance(default, float):
            default = f"{default:g}"
        particulars = [self.unit] if self.unit else []
        particulars += ["repeatable"] if self.repeatable else []
        words = self.otherwise or ("off" if default is None else str(default))
        particulars += [f"default: {words}"]
        return f"{self.help} [{'; '.join(particulars)}]"
