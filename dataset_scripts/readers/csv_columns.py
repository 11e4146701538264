"""Read CSV tables strictly: the names above, then lines with as many cells, each a number, or empty, or a text."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ..wording import cannot_read, repeated, some

_EXPECTED = "a CSV table in UTF-8 with values below its header"
_LONGEST_LINE = 2**24
# A column takes 8 KB, however few lines it has.
_MOST_COLUMNS = 2**16
_EMPTY = ["", " ", "nan", " nan", "NaN", " NaN", "NA", " NA"]


def first_lines(path: Path, lines: int = 1) -> list[list[str]]:
    """Return the cells of the first lines, without the spaces around them; none of lines that are not there.

    Raises:
        ValueError: If they are no text in UTF-8, or a line is longer than 16 MiB.
    """
    with open(path, "rb") as file:
        texts = [file.readline(_LONGEST_LINE) for _ in range(lines)]
    if len(max(texts, key=len)) == _LONGEST_LINE:
        raise cannot_read(path, _EXPECTED, ValueError("a line of more than 16 MiB"))
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader([text.decode("utf-8-sig") for text in texts])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise cannot_read(path, _EXPECTED, error) from error
    return rows + [[]] * (lines - len(rows))


def header_of(path: Path) -> list[str]:
    """Return the names in the first line; raise ValueError, as `first_lines` does, if one stands there twice."""
    header = first_lines(path)[0]
    if repeated(filter(None, header)):
        again = some(repeated(filter(None, header)))
        raise ValueError(f"{path}: expected each column once, got {again!r:.200} more than once")
    return header


def read_columns(
    path: Path, *, header_lines: int, columns: int, numbers: Sequence[int], texts: Sequence[int] = ()
) -> dict[int, np.ndarray | list[str]]:
    """Read some columns below the header.

    Args:
        path: The table.
        header_lines: How many lines stand above the values.
        columns: How many cells every line must have.
        numbers: Which columns hold numbers, counted from 0.
        texts: Which columns to read as texts.

    Returns:
        For each of these columns, float64 of shape (lines,) with NaN where a cell is empty, or texts without the
        spaces around them.

    Raises:
        ValueError: If a line has more or fewer cells, a cell is no number, there is no line, or over 65,536 columns.
    """
    if columns > _MOST_COLUMNS:
        raise cannot_read(path, _EXPECTED, ValueError(f"it has {columns} columns"))
    types = {str(column): pa.float64() for column in numbers} | {str(column): pa.string() for column in texts}
    names = [str(column) for column in range(columns)]
    lines = {"column_names": names, "skip_rows": header_lines, "use_threads": False, "block_size": _LONGEST_LINE}
    cells = {"column_types": types, "include_columns": list(types), "null_values": _EMPTY}
    try:
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(**lines),
            convert_options=pyarrow.csv.ConvertOptions(**cells),
        )
    except pa.ArrowInvalid as error:
        raise cannot_read(path, _EXPECTED, ValueError(str(error)[:200])) from error
    if not len(table):
        raise ValueError(f"{path}: expected lines of values below the header, got none")
    values = {column: table[str(column)].to_numpy() for column in numbers}
    return values | {column: [cell.strip() for cell in table[str(column)].to_pylist()] for column in texts}


def steps_of_lines(times: np.ndarray, header_lines: int, file: str) -> np.ndarray:
    """Return the seconds from line to line; raise ValueError if a line has no time, or none after that before it."""
    later = np.isfinite(times) & np.append(True, times[1:] > times[:-1])
    if not later.all():
        line = header_lines + 1 + int(np.argmin(later))
        raise ValueError(f"{file}: expected a time in each line, after the one before, got another at line {line}")
    return np.diff(times)


def read_positions(
    path: Path, names: tuple[str, str, str], neurons: Sequence[str], frames: int, file: str
) -> np.ndarray:
    """Read positions (x, y) of neurons, one line for each.

    Args:
        path: The table.
        names: Its columns of names, x and y.
        neurons: The names of the N neurons.
        frames: How many frames they have, which a table that was transposed has for neurons.
        file: The recording, in messages.

    Returns:
        float64 of shape (N, 2) in the order of the neurons.

    Raises:
        ValueError: If the table is damaged, or does not name these neurons, each once.
    """
    header = header_of(path)
    name, x, y = map(header.index, names)
    columns = read_columns(path, header_lines=1, columns=len(header), numbers=[x, y], texts=[name])
    if repeated(columns[name]):
        again = some(repeated(columns[name]))
        raise ValueError(f"{file}: expected each {names[0]} once in {path.name}, got {again!r:.80} again")
    place = dict(zip(columns[name], zip(columns[x], columns[y], strict=True), strict=True))
    alone = sorted(set(neurons) ^ set(place))
    if alone:
        got = f"none for {alone[0]!r:.80}" if alone[0] in neurons else f"one for {alone[0]!r:.80}, which has no trace"
        turned = "; the traces look transposed" if len(place) == frames else ""
        raise ValueError(
            f"{file}: expected positions of its own {len(neurons)} neurons in {path.name}, got {len(place)}, "
            f"{got}{turned}"
        )
    return np.array([place[neuron] for neuron in neurons])
