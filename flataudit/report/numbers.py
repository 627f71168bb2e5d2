"""How numbers are written for people: with their error, and no more digits than the error allows."""

import math

from flataudit.decision import Comparison
from flataudit.evidence import Interval, Measurement, Outcome

__all__ = ["count", "difference", "gain", "memory", "number", "p_value", "parts", "seconds", "signed", "with_error"]

_BOUND = {"estimate": "", "lower": "≥ ", "upper": "≤ "}


def number(value: float, decimals: int | None = None, *, sign: bool = False) -> str:
    """A number with so many decimals, or four significant digits; a true minus sign.

    >>> number(-0.12345, 2), number(1234567.0), number(0.25, 3, sign=True)
    ('−0.12', '1.235e+06', '+0.250')
    """
    form = ("+" if sign else "") + (".4g" if decimals is None else f".{decimals}f")
    text = format(value, form)
    if text.strip("+-0.") == "" and text.startswith("-"):
        text = ("+" if sign else "") + text[1:]
    return text.replace("-", "−", 1) if text.startswith("-") else text


def with_error(measurement: Measurement) -> str:
    """The number with its interval, ``≥`` or ``≤`` before a bound, ``exact``, or that its error is unknown.

    >>> from flataudit.evidence import Metric
    >>> with_error(Metric(name="accuracy").measured(0.97312, interval=(0.9652, 0.9803)))
    '0.9731 [0.9652, 0.9803]'
    >>> with_error(Metric(name="lambda_max").measured(41.5, standard_error=0.0, bound="lower"))
    '≥ 41.5'
    >>> with_error(Metric(name="hessian_trace").measured(1.25, standard_error=0.0))
    '1.25 exact'
    """
    return " ".join(part for part in parts(measurement) if part)


def parts(measurement: Measurement) -> tuple[str, str]:
    """The number (or its outcome) and what is known of its error, apart.

    >>> from flataudit.evidence import Metric
    >>> parts(Metric(name="accuracy").measured(0.97312, interval=(0.9652, 0.9803)))
    ('0.9731', '[0.9652, 0.9803]')
    """
    value, interval = measurement.estimate, measurement.interval
    if measurement.outcome is not Outcome.MEASURED or value is None:
        return measurement.outcome.replace("_", " "), ""
    text = _BOUND[measurement.bound] + number(value, _decimals(interval))
    if interval is not None:
        return text, _limits(interval)
    if measurement.bound != "estimate":
        return text, ""
    if measurement.standard_error == 0:
        return text, "exact"
    return text, "(error unknown)" if measurement.standard_error is None else f"± {measurement.standard_error:.2g}"


def difference(comparison: Comparison) -> str:
    """Challenger minus champion, signed, with its interval; or why there is none.

    >>> difference(Comparison(metric="m", champion="a", challenger="b", difference=0.01, interval=(-0.002, 0.022)))
    '+0.010 [−0.002, +0.022]'
    """
    if comparison.difference is None:
        return "not compared"
    return " ".join(part for part in signed(comparison.difference, comparison.interval) if part)


def gain(comparison: Comparison) -> str:
    """How much better the challenger is, signed, with its interval."""
    if comparison.gain is None:
        return "not compared"
    return " ".join(part for part in signed(comparison.gain, comparison.gain_interval) if part)


def signed(value: float, interval: Interval | None) -> tuple[str, str]:
    """A difference and its interval, apart, both signed."""
    return number(value, _decimals(interval), sign=True), _limits(interval, sign=True) if interval else ""


def p_value(value: float | None) -> str:
    """A p-value to two digits.

    >>> p_value(0.0321), p_value(1e-9), p_value(None)
    ('0.032', '< 0.001', '–')
    """
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def count(value: int | None) -> str:
    """A whole number with separated thousands.

    >>> count(4707)
    '4,707'
    """
    return "–" if value is None else f"{value:,}"


def seconds(value: float) -> str:
    """A duration.

    >>> seconds(0.0312), seconds(7.25), seconds(150)
    ('31 ms', '7.2 s', '2 min 30 s')
    """
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    return f"{int(value) // 60} min {int(value) % 60} s"


def memory(value: float) -> str:
    """Bytes in binary units.

    >>> memory(0), memory(3 * 2**20)
    ('0 B', '3.0 MiB')
    """
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _decimals(interval: Interval | None) -> int | None:
    """Decimals that show the two leading digits of the interval's half width."""
    if interval is None or interval[0] == interval[1]:
        return None
    largest, half = max(abs(interval[0]), abs(interval[1])), (interval[1] - interval[0]) / 2
    if not 1e-4 <= largest < 1e6:
        return None
    return min(6, max(0, 1 - math.floor(math.log10(half)))) if half > 1e-12 else None


def _limits(interval: Interval, *, sign: bool = False) -> str:
    low, high = (number(end, _decimals(interval), sign=sign) for end in interval)
    return f"[{low}, {high}]"
