"""Words for messages, summaries and cards: names cut short, counts with their noun, ranges, sizes, broken files."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence

_SHOWN = 8
_SIZES = ("bytes", "kB", "MB", "GB", "TB")


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


def tallied(notes: Iterable[str], recordings: int) -> list[str]:
    """Return each note once, with how many of the recordings have it."""
    return [f"{note} ({times} of {count(recordings, 'recording')})" for note, times in Counter(notes).items()]


def value_range(values: Iterable[float]) -> str:
    """Return "5" where all values look the same, else "4.5 to 7.9"; whole numbers with all their digits."""
    values = sorted(values)
    return " to ".join(dict.fromkeys(map(_short, (values[0], values[-1]))))


def byte_size(number: int) -> str:
    """Return "321 bytes" or "12.3 MB" for a number of bytes."""
    power = min((len(str(number)) - 1) // 3, len(_SIZES) - 1)
    return f"{number / 1000**power:.{min(power, 1)}f} {_SIZES[power]}"


def printable(line: str) -> str:
    """Return a line without what a terminal obeys; ids and names come from files of strangers."""
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def reason_of(error: Exception) -> str:
    """Return what an error says in one line, or its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def cannot_read(path: str | os.PathLike, expected: str, error: Exception) -> ValueError:
    """Return the error for a file that breaks while it is read."""
    return ValueError(
        f"{path}: expected {expected}, got a file that cannot be read, perhaps truncated ({reason_of(error)}); "
        "copy or export it again"
    )


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"
