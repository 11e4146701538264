"""A file of a build gives back what was written; a damaged or foreign one is one plain line."""

import dataclasses
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damaged_files import damage, damages, reads_or_refuses
from example_recordings import full_recording, recording
from hypothesis import given
from neurt.dataset_scripts import parquet_rows
from neurt.dataset_scripts.parquet_rows import SCHEMA, add_columns, read_recording, write_recording
from neurt.dataset_scripts.recording import Recording


@pytest.fixture
def stored(tmp_path):
    """Write a recording; with changes to its table, rewrite the file so."""

    def store(one, change=None, name="r1.parquet"):
        path = tmp_path / name
        write_recording(path, one)
        if change:
            table = change(pq.read_table(path))
            pq.write_table(table, path)
        return path

    return store


def replaced(name, values):
    """A change of a table: other values (an Arrow array) in a column."""
    return lambda table: table.set_column(table.column_names.index(name), name, values)


def test_every_field_is_read_back(stored):
    full = full_recording()
    got = read_recording(stored(full), {"file": "a.mat"})
    for field in dataclasses.fields(Recording):
        expected = {"genotype": "5xFAD", "age": "8"} if field.name == "labels" else getattr(full, field.name)
        if field.name != "columns":
            np.testing.assert_array_equal(getattr(got, field.name), expected, err_msg=field.name)
    assert got.traces.dtype == np.float32 and got.unit_ids.dtype == np.int64


def test_columns_keep_type_order_missing_values_and_all_digits(stored):
    got = read_recording(stored(full_recording())).columns
    assert {
        name: values.dtype.kind + str(values.dtype.itemsize) for name, values in got.items() if name != "note"
    } == {
        "mask_type": "U32",
        "quality": "f8",
        "root_id": "i8",
        "seen": "b1",
        "snr": "f4",
    }
    assert got["mask_type"].tolist() == ["soma", "artifact", "soma"] and got["snr"].tolist() == [1, 2, 3]
    assert got["root_id"].tolist() == [2**53 + 1, None, 2**62]
    assert got["seen"].tolist() == [True, False, None] and got["note"].tolist() == [None, "", "é"]
    # Not a number is a result, and another thing than none.
    assert not np.ma.isMaskedArray(got["quality"])
    np.testing.assert_array_equal(got["quality"], [0.1, np.nan, 3])


def test_a_column_is_stored_with_its_type_between_schema_and_labels(stored):
    schema = pq.read_schema(stored(full_recording()))
    further = schema.names[len(SCHEMA) :]
    assert further == ["mask_type", "note", "quality", "root_id", "seen", "snr", "age", "genotype"]
    kinds = [pa.string(), pa.string(), pa.float64(), pa.int64(), pa.bool_(), pa.float32(), pa.string(), pa.string()]
    assert [schema.field(name).type for name in further] == kinds
    assert pq.read_table(stored(full_recording()))["root_id"].to_pylist() == [2**53 + 1, None, 2**62]


def test_a_text_that_is_the_same_for_all_neurons_stays_a_column(stored):
    got = read_recording(stored(recording(labels={"sex": "f"}, columns={"layer": np.array(["L2", "L2", "L2"])})))
    assert got.labels == {"sex": "f"} and got.columns["layer"].tolist() == ["L2", "L2", "L2"]


def test_columns_that_only_others_have_are_empty_and_not_read_back(stored):
    path = stored(recording(labels={"sex": "f"}))
    assert add_columns(path, {"snr": "float32", "note": "string"}, ["cage", "sex"])
    rows = pq.read_table(path)
    assert rows.column_names[len(SCHEMA) :] == ["note", "snr", "cage", "sex"]
    assert rows["snr"].type == pa.float32() and rows["snr"].null_count == 3
    got = read_recording(path)
    assert got.labels == {"sex": "f"} and dict(got.columns) == {}
    assert not add_columns(path, {"snr": "float32", "note": "string"}, ["cage", "sex"])


def test_columns_added_in_one_step_or_two_are_the_same_bytes(stored):
    whole = full_recording(labels={"a": "1"}, columns={})
    once, twice = stored(whole, name="once"), stored(whole, name="twice")
    add_columns(once, {"snr": "float32"}, ["a", "b", "c"])
    add_columns(twice, {}, ["a", "c"])
    add_columns(twice, {"snr": "float32"}, ["a", "b", "c"])
    assert once.read_bytes() == twice.read_bytes()


def test_missing_values_in_traces_are_written_and_read_as_they_are(stored):
    traces = np.array([[1, np.nan, 3, 4]] * 3, dtype=np.float32)
    np.testing.assert_array_equal(read_recording(stored(recording(traces=traces))).traces, traces)


@pytest.mark.parametrize(("neurons", "frames", "groups"), [(300, 20_000, 6), (3, 2_000_000, 3), (500, 40, 1)])
def test_row_groups_are_of_a_few_megabytes_whatever_the_length(stored, neurons, frames, groups):
    # 2**20 values of four bytes: 52 rows of 20,000.
    path = stored(recording(neurons=neurons, traces=np.zeros((neurons, frames), dtype=np.float32)))
    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups)]
    assert len(sizes) == groups and max(sizes) < max(4.2 * 2**20, 4.2 * frames)


def test_pages_are_indexed_and_statistics_are_kept_where_they_help_a_search(stored):
    with pq.ParquetFile(stored(full_recording())) as file:
        group = file.metadata.row_group(0)
        chunks = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert all(chunk.has_offset_index for chunk in chunks.values())
    assert chunks["x_um"].statistics.max == 5 and chunks["subject_id"].statistics.min == "m1"
    assert chunks["trace.list.element"].statistics is None


def test_writing_takes_a_few_row_groups_of_memory_beside_the_traces(tmp_path):
    one = recording(neurons=300, traces=np.random.default_rng(0).normal(size=(300, 20_000)).astype(np.float32))
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        write_recording(tmp_path / "r1.parquet", one)
        peak = pool.max_memory() + tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    assert 2**20 < peak < one.traces.nbytes


FOREIGN = {
    "no rows": (lambda table: table.slice(0, 0), "it has no rows"),
    "no trace column": (lambda table: table.drop_columns("trace"), "no column trace of type list"),
    "texts as numbers": (replaced("subject_id", pa.array([1, 1, 1])), "no column subject_id of type string"),
    "two columns of one name": (lambda table: table.append_column("roi_id", table["roi_id"]), "two columns"),
    "a list of texts": (lambda table: table.append_column("x", pa.array([["a"]] * 3)), "column x is of type list"),
    "two recordings": (replaced("recording_id", pa.array(["a", "a", "b"])), "rows of several recordings"),
    "no subject": (replaced("subject_id", pa.array([None, "m", "m"])), "subject_id is missing in 1 of 3 rows"),
    "a null trace": (replaced("trace", pa.array([[1], None, [1]], pa.list_(pa.float32()))), "is missing"),
    "a null value": (replaced("trace", pa.array([[1], [None], [1]], pa.list_(pa.float32()))), "is missing"),
    "unequal lengths": (replaced("trace", pa.array([[1], [1, 2], [1]], pa.list_(pa.float32()))), "1 to 2 frames"),
    "no frames": (replaced("trace", pa.array([[]] * 3, pa.list_(pa.float32()))), "expected traces of shape"),
    "no rate": (replaced("sampling_rate", pa.array([np.nan] * 3)), "expected a sampling rate in Hz above 0"),
    "repeated neurons": (replaced("roi_id", pa.array(["a", "a", "b"])), "expected unique roi_ids"),
    "a long text": (lambda t: t.append_column("x", pa.array(["a" * 2**25, "", ""])), "a text of 33554432 characters"),
    "foreign metadata": (lambda t: t.replace_schema_metadata({"neurt": "[" * 5000}), "cannot be read"),
    "unknown labels": (lambda t: t.replace_schema_metadata({"neurt": '{"labels": ["x"]}'}), "cannot be read"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_file_that_is_no_recording_is_one_plain_line(stored, what):
    change, message = FOREIGN[what]
    path = stored(recording(), change)
    refusal = reads_or_refuses(lambda: read_recording(path))
    assert refusal.startswith(f"{path}: expected a recording of a NEuRT build") and message in refusal


def test_traces_of_unequal_length_in_two_row_groups_are_refused(stored):
    path = stored(recording(), lambda table: table)
    table = pq.read_table(path)
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.write_table(replaced("trace", pa.array([[1, 2]] * 3, pa.list_(pa.float32())))(table))
    assert "cannot be read" in reads_or_refuses(lambda: read_recording(path))


def test_fewer_traces_than_rows_are_refused(stored, monkeypatch):
    path, whole = stored(recording()), parquet_rows._block
    monkeypatch.setattr(parquet_rows, "_block", lambda column: whole(column)[:-1])
    assert "2 traces in 3 rows" in reads_or_refuses(lambda: read_recording(path))


def test_a_few_bytes_that_stand_for_many_values_are_refused(stored, monkeypatch):
    wide = stored(recording(traces=np.zeros((3, 2**19), dtype=np.float32)), name="wide")
    long = stored(recording(), lambda table: table.take(pa.array(np.zeros(2**18, dtype=np.int64))), name="long")
    assert read_recording(wide).num_frames == 2**19
    monkeypatch.setattr(parquet_rows, "_MOST_CLAIMED_BYTES", 2**20)
    monkeypatch.setattr(parquet_rows, "_MOST_COMPRESSION", 20)
    for path, claim in ((wide, f"3 rows of {2**19} frames"), (long, f"{2**18} rows of 19 columns")):
        refusal = reads_or_refuses(lambda path=path: read_recording(path))
        assert f"it claims {claim} in {path.stat().st_size} bytes" in refusal


@damages
@given(broken=damage())
def test_a_damaged_file_is_read_or_refused_with_one_line(stored, broken):
    path = stored(full_recording())
    path.write_bytes(broken(path.read_bytes()))
    reads_or_refuses(lambda: read_recording(path))
