"""The ScanUnit table: unit ids for masks, from files that may be anything."""

import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damaged_files import damage, damages, reads_or_refuses
from hypothesis import given
from neurt.dataset_scripts.scan_units import read_scan_units

ROWS = pd.DataFrame(
    {
        "session": [4, 4, 4, 5],
        "scan_idx": [7, 7, 7, 6],
        "unit_id": [11, 12, 13, 11],
        "field": [1, 1, 2, 1],
        "mask_id": [1, 5, 1, 1],
        "um_x": [1.5, 2.5, 3.5, 4.5],
    }
)


def save(table, path):
    if path.suffix == ".csv":
        # As the hint about pickles says: the index, whether it holds ids or not, is a column more.
        table.to_csv(path)
    else:
        table.to_parquet(path)
    return path


class Bomb:
    """Unpickling it would print; that nothing is printed shows that nothing was unpickled."""

    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("name", ["ScanUnit.csv", "ScanUnit.parquet"])
def test_a_mask_is_found_by_session_scan_and_field(tmp_path, name):
    units = read_scan_units(save(ROWS, tmp_path / name))
    assert units.of(4, 7, 1) == {1: 11, 5: 12}
    assert units.of(4, 7, 2) == {1: 13}
    assert units.of(5, 6, 1) == {1: 11}
    assert units.of(5, 7, 1) == {}


def test_the_digest_is_of_the_rows_and_not_of_the_container(tmp_path):
    csv = read_scan_units(save(ROWS, tmp_path / "ScanUnit.csv"))
    parquet = read_scan_units(save(ROWS[::-1], tmp_path / "ScanUnit.parquet"))
    other = read_scan_units(save(ROWS.assign(unit_id=[11, 12, 13, 14]), tmp_path / "ScanUnit.csv"))
    assert csv.sha256 == parquet.sha256 != other.sha256


@pytest.mark.parametrize("name", ["ScanUnit.csv", "ScanUnit.parquet"])
def test_ids_may_be_the_index_of_the_table(tmp_path, name):
    table = ROWS.set_index(["session", "scan_idx", "unit_id"])
    assert read_scan_units(save(table, tmp_path / name)).of(4, 7, 1) == {1: 11, 5: 12}


@pytest.mark.parametrize("name", ["ScanUnit.pkl", "table.csv"])
def test_a_pickle_is_refused_unopened_with_the_command_that_exports_it(tmp_path, capsys, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=rf"got a pickle.*read_pickle\('{name}'\)\.to_csv\('ScanUnit.csv'\)"):
        read_scan_units(path)
    assert capsys.readouterr().out == ""


def test_a_pickle_of_an_old_protocol_is_told_by_its_name(tmp_path):
    path = tmp_path / "ScanUnit.pkl"
    path.write_bytes(pickle.dumps(ROWS, protocol=0))
    with pytest.raises(ValueError, match="got a pickle"):
        read_scan_units(path)


def replaced(**columns):
    return ROWS.assign(**columns)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (ROWS.drop(columns="mask_id"), "found no mask_id"),
        (replaced(mask_id=[1, 1, 1, 1]), "got session 4, scan_idx 7, field 1, mask_id 1 again"),
        (replaced(unit_id=[11, 12, np.nan, 11]), "whole numbers in column unit_id, got 'nan'"),
        (replaced(unit_id=[11, 12.5, 13, 11]), "whole numbers in column unit_id, got '12.5'"),
        (replaced(field=["1", "1", "two", "1"]), "whole numbers in column field, got 'two'"),
        (replaced(session=[4, 4, -4, 5]), "whole numbers in column session, got '-4'"),
    ],
)
@pytest.mark.parametrize("name", ["ScanUnit.csv", "ScanUnit.parquet"])
def test_a_table_that_cannot_be_joined_is_refused_with_what_is_wrong(tmp_path, table, message, name):
    with pytest.raises(ValueError, match=message):
        read_scan_units(save(table, tmp_path / name))


def test_a_column_that_stands_there_twice_is_refused(tmp_path):
    table = pa.Table.from_pandas(ROWS, preserve_index=False)
    pq.write_table(table.append_column("field", table["field"]), tmp_path / "ScanUnit.parquet")
    with pytest.raises(ValueError, match="found 2 field"):
        read_scan_units(tmp_path / "ScanUnit.parquet")


def test_a_missing_file_and_an_empty_one_are_refused(tmp_path):
    with pytest.raises(ValueError, match="found no file"):
        read_scan_units(tmp_path / "ScanUnit.csv")
    (tmp_path / "ScanUnit.csv").touch()
    with pytest.raises(ValueError, match="a ScanUnit table as CSV or Parquet, got a file that cannot be read"):
        read_scan_units(tmp_path / "ScanUnit.csv")


def test_a_parquet_file_that_would_unfold_to_millions_of_rows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("neurt.dataset_scripts.scan_units._MOST_ROWS", 3)
    with pytest.raises(ValueError, match="expected at most 3 rows, got 4"):
        read_scan_units(save(ROWS, tmp_path / "ScanUnit.parquet"))


@pytest.mark.parametrize("name", ["ScanUnit.csv", "ScanUnit.parquet"])
def test_a_damaged_table_is_read_or_refused_with_one_plain_line(tmp_path, name):
    whole = save(ROWS, tmp_path / name).read_bytes()
    path = tmp_path / f"damaged_{name}"

    @damages
    @given(damage())
    def check(apply):
        path.write_bytes(apply(whole))
        reads_or_refuses(lambda: read_scan_units(path))

    check()
