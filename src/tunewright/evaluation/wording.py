"""Numbers as people read them: signs, intervals, p-values, durations."""

from __future__ import annotations

from tunewright.evaluation.statistics import Interval


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with a real minus sign, or a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def percent(value: float | None) -> str:
    """Return a share in whole percents, or a dash for None."""
    return "–" if value is None else f"{value:.0%}"


def signed(value: float, digits: int = 2) -> str:
    """Return a number with its sign, plus too."""
    return f"{value:+.{digits}f}".replace("-", "−")


def p_value(p: float) -> str:
    """Return a p-value as journals print it."""
    return "< .001" if p < 0.0005 else f"{p:.3f}".removeprefix("0")


def spread(interval: Interval, digits: int = 2) -> str:
    """Return the bounds of an interval."""
    return f"{number(interval.low, digits)} to {number(interval.high, digits)}"


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def plain(interval: Interval, level: float = 0.95) -> str:
    """Return a difference with its interval: ``+0.31 (95% interval +0.20 to +0.42)``."""
    return f"{signed(interval.mean)} ({level:.0%} interval {signed(interval.low)} to {signed(interval.high)})"
