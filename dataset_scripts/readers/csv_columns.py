"""Read CSV tables strictly: the names above, then lines with as many cells, each a number, or empty, or a text."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from .source import cannot_read

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
