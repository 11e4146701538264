"""Columns of a CSV table are read strictly: every line whole, every number a number."""

import numpy as np
import pytest
from damaged_files import reads_or_refuses
from neurt.dataset_scripts.readers.csv_columns import first_lines, read_columns


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_columns_are_read_by_number_whatever_stands_in_the_others(tmp_path):
    path = write(tmp_path / "a.csv", "\ufeffname,x,free,y\n b ,1,?,2\n,, text, 4.5\n\n c,nan,,-1e3\n")
    assert first_lines(path) == [["name", "x", "free", "y"]]
    got = read_columns(path, header_lines=1, columns=4, numbers=[3, 1], texts=[0])
    assert got[0] == ["b", "", "c"]
    np.testing.assert_array_equal(got[1], [1, np.nan, np.nan])
    np.testing.assert_array_equal(got[3], [2, 4.5, -1000])


def test_lines_that_are_not_there_have_no_cells(tmp_path):
    assert first_lines(write(tmp_path / "a.csv", ""), 2) == [[], []]
    assert first_lines(write(tmp_path / "a.csv", "a, b"), 2) == [["a", "b"], []]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", "Expected 2 columns, got 1"),
        ("a,b\n1,2\n3,4,5\n", "Expected 2 columns, got 3"),
        ("a,b\n1,0x10\n", "invalid value '0x10'"),
        ("a,b\n1,True\n", "invalid value 'True'"),
        ("a,b\n", "expected lines of values below the header, got none"),
        ("", "expected a CSV table"),
        ('a,b\n1,"2\n3,4\n', "expected a CSV table"),
        (b"a,b\n1,\xff\n", "expected a CSV table"),
    ],
)
def test_a_table_that_is_not_whole_is_one_plain_line(tmp_path, text, message):
    path = write(tmp_path / "a.csv", text)
    got = reads_or_refuses(lambda: read_columns(path, header_lines=1, columns=2, numbers=[0, 1]))
    assert message in got and "a.csv" in got


def test_a_table_too_wide_to_hold_is_refused(tmp_path):
    many = 10**6
    path = write(tmp_path / "a.csv", "," * (many - 1) + "\n" + "," * (many - 1) + "\n")
    got = reads_or_refuses(lambda: read_columns(path, header_lines=1, columns=many, numbers=range(many)))
    assert "it has 1000000 columns" in got
    wide = write(tmp_path / "b.csv", "a" * 2**24)
    assert "a line of more than 16 MiB" in reads_or_refuses(lambda: first_lines(wide))
    assert "\n" not in reads_or_refuses(lambda: first_lines(write(tmp_path / "c.csv", b"\xff\n")))
