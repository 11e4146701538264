"""What files do not say about themselves: `recordings.csv`, one row per file.

    file,recording,subject,session,field,sampling_rate,um_per_pixel,indicator,brain_area,split,genotype
    M1_A.mat,,M1,2024-05-01,,5.1,0.994,GCaMP6s,V1,train,wild type

`file` is the path below the folder that is imported, or the file's name where that is unique. The other columns of the
first line may be left out, their cells may be empty; every further column (genotype, cage, date ...) is a label.
"""

import csv
import dataclasses
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .recording import SPLITS
from .wording import repeated, some

_TEXTS = ("recording", "subject", "session", "indicator", "brain_area", "positions")
_NUMBERS = ("sampling_rate", "um_per_pixel")
KNOWN_COLUMNS = ("file", *_TEXTS, *_NUMBERS, "field", "split")


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is stated about one file; None where nothing is.

    Args:
        recording: The recording_id.
        subject: The animal.
        session: The imaging session.
        field: Number of the imaging field or plane.
        sampling_rate: Frames per second (Hz).
        um_per_pixel: Edge of a pixel in µm.
        indicator: For example "GCaMP6s".
        brain_area: For example "V1".
        positions: A CSV file of positions: its path from the folder of the file, or from where the command runs.
        split: "train", "validation" or "test".
        labels: Everything else; the same names for every file of one table.
    """

    recording: str | None = None
    subject: str | None = None
    session: str | None = None
    field: int | None = None
    sampling_rate: float | None = None
    um_per_pixel: float | None = None
    indicator: str | None = None
    brain_area: str | None = None
    positions: str | None = None
    split: str | None = None
    labels: Mapping[str, str | None] = dataclasses.field(default_factory=dict)

    def or_else(self, other: "Facts") -> "Facts":
        """Return these facts with those of another where nothing is stated here."""
        stated = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "labels"}
        filled = {name: getattr(other, name) if value is None else value for name, value in stated.items()}
        return Facts(**filled, labels={**other.labels, **self.labels})


def read_metadata(path: str | os.PathLike) -> dict[str, Facts]:
    """Read `recordings.csv` into the facts about each `file`.

    Raises:
        ValueError: If the table has no `file` column, names a file, recording or column twice, or a cell is not what
            its column holds; the line is named.
    """
    facts: dict[str, Facts] = {}
    files: dict[str, int] = {}
    recordings: dict[str, int] = {}
    for line, row in read_table(path, "file"):
        file = row["file"].replace("\\", "/").removeprefix("./").rstrip("/")
        check_new("file", file, files, path, line)
        facts[file] = _facts(row, f"{path}, line {line}")
        if facts[file].recording:
            check_new("recording", facts[file].recording, recordings, path, line)
    return facts


def match_metadata(table: Mapping[str, Facts], files: Iterable[str]) -> dict[str, Facts]:
    """Return the facts about each file that was found, by the file's path below the imported folder.

    Raises:
        ValueError: If a file has no row, a row no file, or a name without its folder fits several files.
    """
    files = list(files)
    rows = {_row_of(table, file, files): file for file in files}
    rows.pop(None, None)
    missing = [file for file in files if file not in rows.values()]
    if missing:
        raise ValueError(
            f"metadata: expected a row for every file, got none for {some(missing)}; add {_them(missing)}"
        )
    unknown = [row for row in table if row not in rows]
    if unknown:
        raise ValueError(
            f"metadata: expected rows for files that are there, got {some(unknown)}; "
            f"files found: {some(files)}; correct or remove {_them(unknown)}"
        )
    return {file: table[row] for row, file in rows.items()}


def _row_of(table: Mapping[str, Facts], file: str, files: list[str]) -> str | None:
    name = file.rsplit("/", 1)[-1]
    if file in table or name not in table:
        return file if file in table else None
    same = [other for other in files if other.rsplit("/", 1)[-1] == name]
    if len(same) > 1:
        raise ValueError(f"metadata: expected paths that fit one file, got {name!r}, which fits {some(same)}")
    return name


def read_table(path: str | os.PathLike, *keys: str) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV table whose header names columns of a build, into (line number, cells by column name).

    Args:
        path: The table, in UTF-8. Empty lines and spaces around cells are left out.
        *keys: Columns of which there must be exactly one.

    Raises:
        ValueError: If it is no such table; the line is named.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            # A cell may run over lines; no id, label or message does.
            lines = [(reader.line_num, [" ".join(cell.strip().splitlines()) for cell in cells]) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected a CSV table in UTF-8, got something else ({error})") from error
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise ValueError(f"{path}: expected a header with a column {' or '.join(keys)}, got an empty table")
    if len(lines) == 1:
        raise ValueError(f"{path}: expected one line per {' or '.join(keys)} below the header, got none")
    header = lines[0][1]
    _check_header(path, header, keys)
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise ValueError(
                f"{path}, line {number}: expected {len(header)} cells as in the header, got {len(cells)}; "
                "put quotes around a cell with a comma"
            )
    return [(number, dict(zip(header, cells, strict=True))) for number, cells in lines[1:]]


def check_new(what: str, name: str, lines: dict[str, int], path: str | os.PathLike, line: int) -> None:
    """Remember the line of a name; raise ValueError if it is empty or stands on another line already."""
    if not name:
        raise ValueError(f"{path}, line {line}: expected a {what}, got an empty cell")
    if name in lines:
        raise ValueError(
            f"{path}, line {line}: expected each {what} once, got {name!r} again (first on line {lines[name]})"
        )
    lines[name] = line


def _check_header(path: str | os.PathLike, header: list[str], keys: Sequence[str]) -> None:
    if sum(name in keys for name in set(header)) != 1:
        raise ValueError(
            f"{path}: expected comma-separated columns, one of them {' or '.join(keys)}, got {', '.join(header)}"
        )
    if repeated(header):
        raise ValueError(f"{path}: expected each column once, got {some(repeated(header))} more than once")
    for name in header:
        if not re.fullmatch(r"[A-Za-z]\w*", name):
            raise ValueError(
                f"{path}: expected column names of letters, digits and _ (they name columns later), got {name!r}"
            )


def _facts(row: Mapping[str, str], where: str) -> Facts:
    values: dict[str, Any] = {name: row.get(name) or None for name in (*_TEXTS, "split")}
    values |= {name: _number(row.get(name), name, where) for name in _NUMBERS}
    if values["split"] not in (None, *SPLITS):
        raise ValueError(f"{where}: expected {', '.join(SPLITS)} or nothing in column split, got {values['split']!r}")
    labels = {name: cell or None for name, cell in row.items() if name not in KNOWN_COLUMNS}
    return Facts(**values, field=_whole_number(row.get("field"), where), labels=labels)


def _number(cell: str | None, name: str, where: str) -> float | None:
    if not cell:
        return None
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{where}: expected a number above 0 with a decimal point in column {name}, got {cell!r}")
    return number


def _whole_number(cell: str | None, where: str) -> int | None:
    if cell and not re.fullmatch(r"-?\d{1,9}", cell):
        raise ValueError(f"{where}: expected a whole number in column field, got {cell!r}")
    return int(cell) if cell else None


def _them(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
