"""How long to wait after failures in a row: longer after each of them."""

_DOUBLED_AT_MOST = 60  # times: far beyond every longest pause, and within what a float holds


def pause(failures: int, *, first: float, longest: float) -> float:
    """Return the seconds to wait after ``failures``: ``first`` after one, doubled by each other, up to ``longest``."""
    return min(longest, first * 2.0 ** min(failures - 1, _DOUBLED_AT_MOST))
