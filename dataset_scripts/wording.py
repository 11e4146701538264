"""Words for messages, summaries and cards: names cut short, counts with their noun, ranges."""

from collections import Counter
from collections.abc import Iterable, Sequence

_SHOWN = 8


def some(names: Sequence[str]) -> str:
    """Return the first names and how many more there are: "a, b and 12 more"."""
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that stand there more than once, each once, sorted."""
    return sorted(name for name, times in Counter(names).items() if times > 1)


def count(number: int, noun: str) -> str:
    """Return "1 recording" or "2 recordings"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def value_range(values: Iterable[float]) -> str:
    """Return "5" where all values are the same, else "4.5 to 7.9"; whole numbers with all their digits."""
    values = sorted(values)
    least, most = values[0], values[-1]
    return _short(least) if least == most else f"{_short(least)} to {_short(most)}"


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"
