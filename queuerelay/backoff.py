"""How long to wait before another try, where the last ones failed."""


def back_off(
    failures: int, *, first: float, longest: float, factor: float = 2.0, jitter: float = 0.5
) -> float:
    """Seconds to wait after so many `failures` in a row, from 1.

    `first` after the first, and `factor` times as long after each further one, `longest` at most.
    `jitter`, drawn from [0, 1), makes that longer or shorter by a half at most, so that what failed
    together does not come again together; 0.5 changes nothing.
    """
    # The exponent is bounded because a float is.
    base = min(longest, first * factor ** min(max(failures, 1) - 1, 16))
    return min(longest, base * (0.5 + jitter))
