"""The ScanUnit table of the MICrONS release: which unit each mask of a field belongs to.

Columns `session, scan_idx, field, mask_id, unit_id`, whole numbers, one row per mask; further columns are not read. A
unit_id is unique within its scan only: the same number in another scan is another neuron.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .wording import cannot_read

_MASK = ["session", "scan_idx", "field", "mask_id"]
_EXPECTED = "a ScanUnit table as CSV or Parquet"
_COLUMNS = [*_MASK, "unit_id"]
# The published table has about 120,000; more than this would be a forged file that unfolds in memory.
_MOST_ROWS = 5_000_000


class ScanUnits:
    """Unit ids by field and mask.

    Args:
        table: The five columns as int64.

    Attributes:
        sha256: Digest of the table, the same for CSV and Parquet and any order of rows.
    """

    def __init__(self, table: pd.DataFrame):
        self.sha256 = hashlib.sha256(table.sort_values(_COLUMNS).to_numpy().tobytes()).hexdigest()
        self._by_field = {key: rows for key, rows in table.groupby(_MASK[:-1])}

    def of(self, session: int, scan: int, field: int) -> Mapping[int, int]:
        """Return the unit_id for each mask_id of a field that has one."""
        rows = self._by_field.get((session, scan, field))
        return {} if rows is None else dict(zip(rows["mask_id"].tolist(), rows["unit_id"].tolist(), strict=True))


def read_scan_units(path: str | os.PathLike) -> ScanUnits:
    """Read a ScanUnit table that was exported as CSV or Parquet.

    The published table is a pickle, which would run whatever it holds, so it is not opened here.

    Raises:
        ValueError: If the file is a pickle or damaged, a column is missing or holds anything but whole numbers, or a
            mask stands there twice.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "pickle":
        raise ValueError(
            f"{path}: expected {_EXPECTED}, got a pickle, which can run code; "
            f"if you trust it: python -c \"import pandas; pandas.read_pickle('{path.name}').to_csv('ScanUnit.csv')\""
        )
    table = _whole_numbers(_read_parquet(path) if kind == "parquet" else _read_csv(path), path)
    twice = table.duplicated(_MASK)
    if twice.any():
        mask = ", ".join(f"{name} {value}" for name, value in table.loc[twice, _MASK].iloc[0].items())
        raise ValueError(f"{path}: expected each mask once, got {mask} again; leave one unit for each mask")
    return ScanUnits(table)


def _kind(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path}: expected {_EXPECTED}, found no file; check the path")
    with open(path, "rb") as file:
        start = file.read(4)
    if start == b"PAR1":
        return "parquet"
    # Protocols 2 and later begin with 0x80, which no CSV in UTF-8 does; older ones are told by their name.
    return "pickle" if start[:1] == b"\x80" or path.suffix.lower() in (".pkl", ".pickle") else "csv"


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, usecols=lambda name: name in _COLUMNS, encoding="utf-8-sig", low_memory=False)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise cannot_read(path, _EXPECTED, error) from error


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows > _MOST_ROWS:
                raise ValueError(f"{path}: expected at most {_MOST_ROWS:,} rows, got {file.metadata.num_rows:,}")
            return file.read(_COLUMNS, use_threads=False).to_pandas(ignore_metadata=True)
    except (pa.ArrowException, OSError) as error:
        raise cannot_read(path, _EXPECTED, error) from error


def _whole_numbers(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    for name in _COLUMNS:
        columns = list(table).count(name)
        if columns != 1:
            expected = f"columns {', '.join(_COLUMNS)}, each once"
            raise ValueError(f"{path}: expected {expected}, found {columns or 'no'} {name}; export it with them")
        if table[name].dtype.kind not in "iu" or (table[name] < 0).any():
            raise ValueError(
                f"{path}: expected whole numbers in column {name}, got {_first_other(table[name])}; leave rows "
                "without a unit out"
            )
    return table[_COLUMNS].astype(np.int64)


def _first_other(column: pd.Series) -> str:
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = ~(numbers.ge(0) & numbers.mod(1).eq(0)).to_numpy()
    return repr(str(column.iloc[int(wrong.argmax())])[:40]) if wrong.any() else f"{column.dtype}"
