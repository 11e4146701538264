"""Labels of animals or recordings from a table, `--labels mice.csv`.

    subject,genotype,sex
    M1,5xFAD,f
    M2,wild type,m

The key is a column `subject` or `recording`, exactly one of them; every other column is a label. Cells may be empty.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .metadata import KNOWN_COLUMNS, check_new, read_table
from .recording import Recording
from .wording import some

_KEYS = ("subject", "recording")


class LabelTable(NamedTuple):
    """What a table of labels says.

    Args:
        path: The table.
        key: "subject" or "recording".
        rows: The labels of each subject_id or recording_id, in the order of the table; None for an empty cell.
    """

    path: str
    key: str
    rows: Mapping[str, Mapping[str, str | None]]

    def key_of(self, recording: Recording) -> str:
        return recording.subject_id if self.key == "subject" else recording.recording_id

    @property
    def class_labels(self) -> dict[str, list[str]]:
        """The sorted, distinct values of each label that has any."""
        names = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        values = {name: {row[name] for row in self.rows.values()} - {None} for name in names}
        return {name: sorted(found) for name, found in values.items() if found}


def read_labels(path: str | os.PathLike) -> LabelTable:
    """Read a table of labels.

    Raises:
        ValueError: If it is no CSV table with one key column and labels beside it, or names a key twice; the line is
            named.
    """
    lines = read_table(path, *_KEYS)
    key = next(name for name in _KEYS if name in lines[0][1])
    _check_labels(path, key, [name for name in lines[0][1] if name != key])
    rows: dict[str, dict[str, str | None]] = {}
    numbers: dict[str, int] = {}
    for number, row in lines:
        name = row.pop(key)
        check_new(key, name, numbers, path, number)
        rows[name] = {label: cell or None for label, cell in row.items()}
    return LabelTable(str(path), key, rows)


def _check_labels(path: str | os.PathLike, key: str, names: list[str]) -> None:
    if not names:
        raise ValueError(f"{path}: expected a column for each label beside {key}, got none")
    known = [name for name in names if name in KNOWN_COLUMNS]
    if known:
        raise ValueError(
            f"{path}: expected labels beside {key}, got {some(known)}, which only --metadata knows; move or rename it"
        )


def with_labels(recording: Recording, table: LabelTable) -> Recording:
    """Return the recording with the labels of its row added; itself if it has none.

    Raises:
        ValueError: If it has another value of the same label already, as from --metadata.
    """
    added = table.rows.get(table.key_of(recording), {})
    stated = {name: value for name, value in recording.labels.items() if value is not None}
    for name, value in added.items():
        if value is not None and stated.get(name, value) != value:
            raise ValueError(
                f"recording {recording.recording_id!r}: expected one value of label {name}, got {stated[name]!r} from "
                f"--metadata and {value!r} from {table.path}; correct one of them"
            )
    return dataclasses.replace(recording, labels={**recording.labels, **added, **stated}) if added else recording


def check_all_labelled(table: LabelTable, keys: Iterable[str], allowed: Iterable[str] = ()) -> None:
    """Raise ValueError unless every subject or recording has a row and every row one of them.

    Args:
        table: The table.
        keys: The subject_id or recording_id of everything that was labelled.
        allowed: Further ones that may have a row.
    """
    present = list(dict.fromkeys(keys))
    missing = [key for key in present if key not in table.rows]
    if missing:
        raise ValueError(
            f"{table.path}: expected a row for every {table.key}, got none for {some(missing)}; add what is missing"
        )
    unknown = [key for key in table.rows if key not in {*present, *allowed}]
    if unknown:
        raise ValueError(
            f"{table.path}: expected rows for each {table.key} that is there, got {some(unknown)}; there are "
            f"{some(present)}; correct or remove what is not"
        )
