"""Showing: the limits in force, as the start log has them. Never the address of Redis, which may
contain a password.
"""

from queuerelay.config.options import OPTIONS
from queuerelay.config.shape import Config, KiB, MiB


def describe(config: Config) -> list[tuple[str, str]]:
    """The limits in force, ``(name, value with its unit)``, for the start log."""
    return [
        (option.name, option.otherwise if value is None else _with_unit(value, option.unit))
        for option in OPTIONS
        if option.limit
        for value in (getattr(config.relay, option.key),)
    ]


def _with_unit(value: float, unit: str) -> str:
    if unit == "bytes" and value % KiB == 0:
        size, scaled = (value // MiB, "MiB") if value % MiB == 0 else (value // KiB, "KiB")
        return f"{value} bytes ({size} {scaled})"
    return f"{value:g} {unit}" if isinstance(value, float) else f"{value} {unit}"
