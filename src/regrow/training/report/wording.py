"""Numbers and comparisons as people read them."""

from __future__ import annotations

import math

from regrow.training.report.run import Spread

MISSING = "–"


def count(number: float | None) -> str:
    """A number of things.

    Example:
        >>> count(1030), count(12_345), count(1_200_000), count(3.1e12), count(None)
        ('1,030', '12.3 k', '1.2 M', '3.1 T', '–')
    """
    if number is None:
        return MISSING
    if abs(number) < 10_000 and number == round(number):
        return f"{number:,.0f}"
    for power, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(number) >= 0.9995 * 10**power:
            return f"{_digits(number / 10**power)} {unit}"
    return _digits(number)


def size(number: float | None) -> str:
    """A number of bytes.

    Example:
        >>> size(512), size(3_565_158), size(None)
        ('512 B', '3.4 MiB', '–')
    """
    if number is None:
        return MISSING
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if abs(number) >= 0.9995 * 1024**power:
            return f"{_digits(number / 1024**power)} {unit}"
    return f"{number:.0f} B"


def duration(seconds: float | None) -> str:
    """A time.

    Example:
        >>> duration(0.00082), duration(1.44), duration(192), duration(7260), duration(None)
        ('0.82 ms', '1.4 s', '3 min 12 s', '2 h 1 min', '–')
    """
    if seconds is None:
        return MISSING
    if seconds < 1e-3 and seconds > 0:
        return f"{_digits(seconds * 1e3, 2)} ms"
    if seconds < 1:
        return f"{_digits(seconds * 1e3)} ms"
    if seconds < 119.5:
        return f"{_digits(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def percent(fraction: float | None, digits: int | None = None) -> str:
    """A fraction in percent, with as many digits as it takes to see it.

    Example:
        >>> percent(0.0512), percent(0.0047), percent(0.97123, 2), percent(1), percent(None)
        ('5.1%', '0.47%', '97.12%', '100%', '–')
        >>> percent(0.1), percent(0.97, 1)
        ('10%', '97.0%')
    """
    if fraction is None:
        return MISSING
    if digits is None:
        if (round(1000 * fraction) % 10 == 0 and abs(fraction) >= 0.01) or fraction == 0:
            return f"{fraction:.0%}"
        digits = (
            1 if abs(fraction) >= 0.01 else min(6, 1 - math.floor(math.log10(abs(100 * fraction))))
        )
    return f"{100 * fraction:.{digits}f}%"


def times(number: float, reference: float | None, fewer: str, more: str) -> str:
    """How a number compares to that of the dense twin, whichever way it goes.

    Args:
        number: Of the arm.
        reference: Of the dense twin; None or 0 gives an empty text.
        fewer: Said if the number is smaller, such as "faster".
        more: Said if it is larger, such as "slower".

    Returns:
        The comparison; within 2% it is "the same", which no measured time can tell apart.

    Example:
        >>> times(10, 124, "fewer", "more"), times(13, 10, "faster", "slower")
        ('12.4× fewer', '1.3× slower')
        >>> times(101, 100, "fewer", "more"), times(0, 5, "fewer", "more")
        ('about the same', 'none')
    """
    if not reference:
        return ""
    if number == reference:
        return "the same"
    if number == 0:
        return "none"
    factor = max(number / reference, reference / number)
    if factor < 1.02:
        return "about the same"
    shown = f"{factor:.0f}" if factor >= 99.95 else f"{factor:.{1 if factor >= 1.095 else 2}f}"
    shown = shown.removesuffix(".0")
    return f"{shown}× {fewer if number < reference else more}"


def score(value: float | None, *, classifies: bool, digits: int = 1) -> str:
    """An accuracy in percent, or R squared as a number.

    Example:
        >>> score(0.97123, classifies=True), score(0.8421, classifies=False)
        ('97.1%', '0.842')
    """
    if value is None:
        return MISSING
    return percent(value, digits) if classifies else f"{value:.3f}".replace("-", "−")


def spread(value: Spread | None, *, classifies: bool, digits: int = 1) -> str:
    """A score with its standard deviation over seeds, if there are several.

    Example:
        >>> spread(Spread(0.971, 0.004, 3), classifies=True)
        '97.1% ± 0.4'
    """
    if value is None:
        return MISSING
    text = score(value.mean, classifies=classifies, digits=digits)
    if value.deviation is None:
        return text
    around = f"{100 * value.deviation:.{digits}f}" if classifies else f"{value.deviation:.3f}"
    return f"{text} ± {around}"


def plural(number: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> plural(1, "seed"), plural(3, "seed")
        ('1 seed', '3 seeds')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _digits(number: float, least: int = 1) -> str:
    """At most one decimal below 100, two below 1, none above."""
    if abs(number) >= 99.95:
        return f"{number:.0f}"
    text = f"{number:.{least if abs(number) >= 0.995 else 2}f}"
    return text.rstrip("0").rstrip(".") if "." in text and number == round(number) else text
