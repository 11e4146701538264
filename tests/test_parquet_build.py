"""A Parquet build is whole or not there, opens with `datasets`, and gives back what was written."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from example_recordings import contents, full_recording, recording, write
from neurt.dataset_scripts import parquet_build, parquet_rows
from neurt.dataset_scripts.parquet_build import (
    finish_build,
    read_build,
    read_manifest,
    write_file,
)
from neurt.dataset_scripts.recording import Recording


def test_everything_that_was_written_is_read_back(tmp_path):
    full = full_recording()
    write([full], tmp_path / "build")
    (got,) = read_build(tmp_path / "build")
    for field in dataclasses.fields(Recording):
        expected = {"genotype": "5xFAD", "age": "8"} if field.name == "labels" else getattr(full, field.name)
        if field.name != "columns":
            np.testing.assert_array_equal(getattr(got, field.name), expected, err_msg=field.name)
    assert got.columns["root_id"].tolist() == [2**53 + 1, None, 2**62]
    assert got.traces.dtype == np.float32 and got.unit_ids.dtype == np.int64
    rows = pq.read_table(tmp_path / "build" / "data" / "train" / "r1.parquet")
    assert rows["unit_id"].to_pylist() == [2**53 + 1, None, 7]


def test_one_row_is_one_roi_and_what_is_unknown_is_null(tmp_path):
    write([recording(centroids=np.array([[1, 2], [3, 4], [np.nan, 6]]), coordinate_unit="px")], tmp_path / "build")
    rows = pq.read_table(tmp_path / "build" / "data" / "train" / "r1.parquet").to_pylist()
    assert [row["roi_id"] for row in rows] == ["0", "1", "2"]
    assert rows[1]["trace"] == [4.0, 5.0, 6.0, 7.0]
    assert [row["x_px"] for row in rows] == [1.0, 3.0, None] and [row["y_px"] for row in rows] == [2.0, 4.0, 6.0]
    for name in ("x_um", "y_um", "z_um", "unit_id", "field", "modality"):
        assert [row[name] for row in rows] == [None] * 3


def test_long_traces_are_written_in_small_row_groups_and_read_back_in_order(tmp_path):
    long = recording(neurons=5, frames=600_000)
    write([long], tmp_path / "build")
    with pq.ParquetFile(tmp_path / "build" / "data" / "train" / "r1.parquet") as file:
        assert file.num_row_groups == 5
    (got,) = read_build(tmp_path / "build")
    np.testing.assert_array_equal(got.traces, long.traces)


def test_datasets_opens_a_build_with_the_splits_that_exist(tmp_path):
    write([recording("b", labels={"cage": 1}), recording("a")], tmp_path / "build", split={"b": "test"})
    opened = datasets.load_dataset(str(tmp_path / "build"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in opened.items()} == {"train": 3, "test": 3}
    assert opened["test"]["cage"][:] == ["1"] * 3 and opened["train"]["cage"][:] == [None] * 3
    assert datasets.get_dataset_config_names(str(tmp_path / "build")) == ["traces", "units"]


def test_the_same_recordings_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write([recording("b", labels={"x": "y"}), recording("a")], tmp_path / name)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_the_manifest_has_the_digest_of_every_file_and_what_was_dropped(tmp_path):
    dropped = []

    def recordings():
        yield recording()
        dropped.append({"recording_id": "r2", "why": "no neurons"})

    write(recordings(), tmp_path / "build", dropped=dropped, parameters={"neuropil": np.float32(0.5)})
    manifest = read_manifest(tmp_path / "build")
    (entry,) = manifest["files"]
    assert entry["sha256"] == hashlib.sha256((tmp_path / "build" / entry["path"]).read_bytes()).hexdigest()
    assert manifest["steps"][0]["dropped"] == dropped and manifest["steps"][0]["parameters"] == {"neuropil": 0.5}


def test_recordings_are_added_to_a_build_and_read_in_sorted_order(tmp_path):
    write([recording("b", labels={"cage": "1"})], tmp_path / "build")
    write([recording("a", labels={"sex": "f"})], tmp_path / "build")
    assert [r.recording_id for r in read_build(tmp_path / "build")] == ["a", "b"]
    assert [r.labels for r in read_build(tmp_path / "build")] == [{"sex": "f"}, {"cage": "1"}]
    manifest = read_manifest(tmp_path / "build")
    assert [step["recordings"] for step in manifest["steps"]] == [["b"], ["a"]]
    for entry in manifest["files"]:
        assert entry["sha256"] == hashlib.sha256((tmp_path / "build" / entry["path"]).read_bytes()).hexdigest()
    datasets.load_dataset(str(tmp_path / "build"), cache_dir=str(tmp_path / "cache"))


def test_adding_to_a_build_writes_new_files_and_changes_none_in_place(tmp_path):
    write([recording("b", labels={"cage": "1"})], tmp_path / "build")
    before = contents(tmp_path / "build")
    for i, name in enumerate(before):
        os.link(tmp_path / "build" / name, tmp_path / f"kept{i}")
    write([recording("a", labels={"sex": "f"})], tmp_path / "build")
    assert [(tmp_path / f"kept{i}").read_bytes() for i in range(len(before))] == list(before.values())


@pytest.mark.parametrize("name", ["r1", "R1"])
def test_a_recording_that_is_there_already_is_refused_and_the_build_stays_as_it_was(tmp_path, name):
    write([recording("r1")], tmp_path / "build")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"recording '{name}'.*in the build yet"):
        write([recording("r0", labels={"cage": "1"}), recording(name)], tmp_path / "build")
    assert contents(tmp_path) == before


def test_a_failure_in_the_middle_leaves_nothing_behind(tmp_path):
    def broken():
        yield recording("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(broken(), tmp_path / "build")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")

    def never():
        raise AssertionError("a recording was read")
        yield

    with pytest.raises(ValueError, match="choose another --output"):
        write(never(), tmp_path)
    with pytest.raises(ValueError, match="got a file"):
        write(never(), tmp_path / "thesis.txt")
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "build").mkdir()
    assert write([recording()], tmp_path / "build").num_neurons == 3


def test_a_build_without_recordings_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got none"):
        write([], tmp_path / "build")
    with pytest.raises(ValueError, match="r9: empty"):
        write([], tmp_path / "build", dropped=[{"recording_id": "r9", "why": "empty"}])
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize(
    "name",
    ["../r", "a/b", "a\\b", "..", ".r", "", "a\0b", "<b>r</b>", "r*", "-r", "r\n", "é" * 101, "r.", "r ", "a\x1b[0m"]
    + ["a\u202eb", "CON", "nul.x", "Com1", "a:b", "\udc80"],
)
def test_a_recording_id_that_is_no_safe_file_name_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="safe as a file name"):
        write([recording(name)], tmp_path / "build")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["trace", "Trace", "recording_id", "a b", "<b>", "", "a" * 101, "a\n"])
def test_a_label_or_column_that_cannot_be_one_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="label names"):
        write([recording(labels={name: "x"})], tmp_path / "build")
    with pytest.raises(ValueError, match="column names"):
        write([recording(columns={name: np.zeros(3)})], tmp_path / "build")


def test_a_label_and_a_column_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected names of labels and columns that differ, got two 'sex'"):
        write([recording(labels={"Sex": "f"}, columns={"sex": np.zeros(3)})], tmp_path / "build")


def test_a_label_may_have_the_name_of_an_argument_of_recording(tmp_path):
    write([recording(labels={"source": "lab", "traces": "good"})], tmp_path / "build")
    (got,) = read_build(tmp_path / "build")
    assert got.labels == {"source": "lab", "traces": "good"}


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'holdout'"):
        write([recording()], tmp_path / "build", split={"r1": "holdout"})
    write([recording()], tmp_path / "build")
    with pytest.raises(ValueError, match="expected a split among train, got 'test'"):
        read_build(tmp_path / "build", split="test")


def test_recordings_with_fewer_than_five_positions_are_named(tmp_path):
    four = np.array([[0, 0], [1, 0], [2, 0], [3, 0], [np.nan, 0]])
    five = np.nan_to_num(four)
    recordings = [
        recording("few", 5, centroids=four, coordinate_unit="um"),
        recording("many", 5, centroids=five, coordinate_unit="um"),
        recording("none", 9),
        recording("rejected", 5, centroids=five, coordinate_unit="um", accepted=np.arange(5) > 0),
    ]
    summary = write(recordings, tmp_path / "build")
    assert [entry["neighbour_channels"] for entry in summary.files] == [False, True, False, False]
    assert [entry["neurons_with_positions"] for entry in summary.files] == [4, 5, 0, 5]
    assert "few, none, rejected" in (tmp_path / "build" / "README.md").read_text()


def test_a_folder_that_is_no_build_is_one_plain_line(tmp_path):
    with pytest.raises(ValueError, match="expected a NEuRT build"):
        read_build(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="expected a NEuRT build"):
        read_build(tmp_path)


def test_a_manifest_cannot_lead_out_of_the_folder(tmp_path):
    write([recording()], tmp_path / "build")
    path = tmp_path / "build" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][0]["path"] = "../other.parquet"
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="expected a NEuRT build"):
        read_build(tmp_path / "build")


@pytest.mark.parametrize("keep", [0, 100, -1, None])
def test_a_damaged_file_of_a_build_is_one_plain_line(tmp_path, keep):
    write([recording()], tmp_path / "build")
    path = tmp_path / "build" / "data" / "train" / "r1.parquet"
    path.unlink() if keep is None else path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"r1\.parquet: expected a recording") as error:
        list(read_build(tmp_path / "build"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("exists", [True, False])
def test_a_build_that_another_process_adds_to_meanwhile_keeps_what_was_added(tmp_path, exists):
    if exists:
        write([recording("r0")], tmp_path / "build")

    def slowly():
        yield recording("r1")
        write([recording("r2")], tmp_path / "build")

    with pytest.raises(ValueError, match="build: expected a build that stays as it is while recordings are added"):
        write(slowly(), tmp_path / "build")
    assert [r.recording_id for r in read_build(tmp_path / "build")] == ["r0", "r2"][not exists :]
    assert [path.name for path in tmp_path.iterdir()] == ["build"]


def staged(tmp_path, *recordings):
    return [write_file(one, tmp_path / "staging") for one in recordings]


def finish(tmp_path, entries, name="build", **changes):
    return finish_build(
        tmp_path / "staging", tmp_path / name, entries, **({"builder": "test", "parameters": {}} | changes)
    )


def test_files_written_one_by_one_make_the_build_that_is_written_at_once(tmp_path):
    both = [full_recording("b"), recording("a", labels={"cage": "1"})]
    entries = staged(tmp_path, *both)
    before = contents(tmp_path / "staging")
    summary = finish(tmp_path, entries)
    write(reversed(both), tmp_path / "whole")
    assert contents(tmp_path / "build") == contents(tmp_path / "whole")
    # The staging folder stays as it was, so that a build that is cut off can go on.
    assert contents(tmp_path / "staging") == before
    assert [entry["recording_id"] for entry in summary.files] == ["b", "a"] and summary.num_neurons == 6


def test_files_written_in_another_order_and_entries_kept_as_json_make_the_same_bytes(tmp_path):
    some = [recording(name, labels={name: "x"}, columns={f"q{name}": np.zeros(3)}) for name in "abc"]
    finish(tmp_path, staged(tmp_path, *some), "one")
    entries = [json.loads(json.dumps(entry)) for entry in staged(tmp_path, *reversed(some))]
    finish(tmp_path, entries, "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_files_are_added_to_a_build_that_is_there(tmp_path):
    write([recording("b")], tmp_path / "build")
    entry = read_manifest(tmp_path / "build")["files"][0]
    finish(tmp_path, staged(tmp_path, recording("a")))
    assert [one.recording_id for one in read_build(tmp_path / "build")] == ["a", "b"]
    assert read_manifest(tmp_path / "build")["files"][1] == entry
    with pytest.raises(ValueError, match="recording 'A'.*in the build yet"):
        finish(tmp_path, staged(tmp_path, recording("A")))
    with pytest.raises(ValueError, match="expected at least one recording to write"):
        finish(tmp_path, [])


def test_a_file_is_read_for_its_digest_once(tmp_path, monkeypatch):
    read = []
    digest = parquet_build.sha256_of
    monkeypatch.setattr(parquet_build, "sha256_of", lambda path: (read.append(path.stem), digest(path))[1])
    write([recording("a"), recording("b")], tmp_path / "build")
    write([recording("c")], tmp_path / "build")
    assert read == ["a", "b", "train", "c", "train"]


def test_a_file_written_again_takes_the_place_of_the_first(tmp_path):
    first, second = staged(tmp_path, recording(neurons=3), recording(neurons=2))
    assert first["sha256"] != second["sha256"] and list(contents(tmp_path / "staging")) == ["data/train/r1.parquet"]
    assert second["neurons"] == 2 and second["bytes"] == (tmp_path / "staging" / second["path"]).stat().st_size


def test_units_hold_the_rows_of_all_recordings_without_their_traces(tmp_path):
    write([full_recording("b"), recording("a", 2), recording("c")], tmp_path / "build", split={"c": "test"})
    rows = pq.read_table(tmp_path / "build" / "units" / "train.parquet")
    assert {"trace", "segment_starts"}.isdisjoint(rows.column_names)
    assert rows["recording_id"].to_pylist() == ["a"] * 2 + ["b"] * 3
    assert rows["root_id"].to_pylist() == [None, None, 2**53 + 1, None, 2**62]
    assert pq.read_metadata(tmp_path / "build" / "units" / "test.parquet").num_rows == 3
    units = read_manifest(tmp_path / "build")["units"]
    assert [(unit["path"], unit["neurons"]) for unit in units] == [
        ("units/train.parquet", 5),
        ("units/test.parquet", 3),
    ]
    for unit in units:
        content = (tmp_path / "build" / unit["path"]).read_bytes()
        assert unit["sha256"] == hashlib.sha256(content).hexdigest() and unit["bytes"] == len(content)


def test_units_of_many_recordings_are_joined_into_few_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_rows, "_UNITS_PER_ROW_GROUP", 5)
    write([recording(name) for name in "abcde"], tmp_path / "build")
    with pq.ParquetFile(tmp_path / "build" / "units" / "train.parquet") as file:
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [6, 6, 3]


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_opens_both_configurations_with_classes_as_classes(tmp_path, streaming):
    recordings = [
        recording("a", labels={"genotype": "5xFAD", "cage": "no"}, columns={"depth": np.array([1, 2, 3])}),
        recording("b", labels={"genotype": "a: b\n---\nc"}),
        recording("c", labels={"genotype": None}),
    ]
    names = ["WT", "5xFAD", "a: b\n---\nc"]
    write(recordings, tmp_path / "build", class_labels={"genotype": names})
    options = {"streaming": True} if streaming else {"cache_dir": str(tmp_path / "cache")}
    for configuration in ((), ("units",)):
        opened = datasets.load_dataset(str(tmp_path / "build"), *configuration, split="train", **options)
        assert opened.features["genotype"] == datasets.ClassLabel(names=names)
        assert opened.features["depth"] == datasets.Value("int64") and opened.features["cage"].dtype == "string"
        assert [row["genotype"] for row in opened] == [1] * 3 + [2] * 3 + [None] * 3
        assert [row["cage"] for row in opened] == ["no"] * 3 + [None] * 6
        assert [row["depth"] for row in opened] == [1, 2, 3] + [None] * 6
        assert ("trace" in opened.features) == (configuration == ())
    stored = pq.read_table(tmp_path / "build" / "data" / "train" / "a.parquet")
    assert stored["genotype"].to_pylist() == ["5xFAD"] * 3


def test_classes_that_are_added_come_after_those_that_are_there(tmp_path):
    write([recording("a", labels={"sex": "m"})], tmp_path / "build", class_labels={"sex": ["m", "f"]})
    write([recording("b", labels={"sex": "?"})], tmp_path / "build", class_labels={"sex": ["?", "f"]})
    assert read_manifest(tmp_path / "build")["class_labels"] == {"sex": ["m", "f", "?"]}
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="recording 'c': expected label 'sex' among m, f, [?], got 'x'"):
        write([recording("c", labels={"sex": "x"})], tmp_path / "build")
    with pytest.raises(ValueError, match="expected class labels that recordings have, got 'cage'"):
        write([recording("c")], tmp_path / "build", class_labels={"cage": ["1"]})
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            {"columns": {"q": np.zeros(3)}},
            {"columns": {"q": np.array([1, 2, 3])}},
            r"q \(float64\) in 'a' and q \(int64\)",
        ),
        ({"columns": {"q": np.zeros(3)}}, {"labels": {"q": "x"}}, r"q \(float64\) in 'a' and q \(label\) in 'b'"),
        ({"labels": {"sex": "f"}}, {"labels": {"Sex": "f"}}, r"sex \(label\) in 'a' and Sex \(label\) in 'b'"),
    ],
)
def test_a_column_that_differs_between_recordings_is_refused(tmp_path, first, second, message):
    with pytest.raises(ValueError, match=f"expected one name and type for a column in every recording, got {message}"):
        write([recording("a", **first), recording("b", **second)], tmp_path / "build")
    assert list(tmp_path.iterdir()) == []


def full_disk(kind):
    """A Parquet writer whose file is on a disk without room."""

    class Full(pq.ParquetWriter):
        def __init__(self, where, schema, **options):
            stem = Path(where).stem
            super().__init__("/dev/full" if (stem == "train") == (kind == "units") else where, schema, **options)

    return Full


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("kind", ["recording", "units"])
def test_a_full_disk_is_one_plain_line_and_the_build_stays_as_it_was(tmp_path, monkeypatch, kind):
    write([recording("a")], tmp_path / "build")
    before = contents(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="expected room on the disk, got none") as error:
        patch.setattr(pq, "ParquetWriter", full_disk(kind))
        write([recording("b")], tmp_path / "build")
    assert "\n" not in str(error.value) and "free some space or choose another --output" in str(error.value)
    assert contents(tmp_path) == before


def test_a_staged_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    (before,) = staged(tmp_path, recording())
    monkeypatch.setattr(parquet_build, "write_recording", lambda path, one: path.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        staged(tmp_path, recording(neurons=2))
    assert hashlib.sha256(contents(tmp_path / "staging")["data/train/r1.parquet"]).hexdigest() == before["sha256"]
    with pytest.raises(ZeroDivisionError):
        staged(tmp_path, recording("r2"))
    assert list(contents(tmp_path / "staging")) == ["data/train/r1.parquet"]


def test_a_staged_file_that_is_gone_is_one_plain_line(tmp_path):
    entries = staged(tmp_path, recording())
    (tmp_path / "staging" / entries[0]["path"]).unlink()
    with pytest.raises(OSError, match=r"r1\.parquet") as error:
        finish(tmp_path, entries)
    assert "\n" not in str(error.value) and not (tmp_path / "build").exists()


@pytest.mark.parametrize("where", ["subject_id", "labels", "source"])
def test_stray_bytes_in_a_name_are_one_plain_line(tmp_path, where):
    stray = {"subject_id": "m\udc80", "labels": {"cage": "m\udc80"}, "source": {"file": "m\udc80.mat"}}
    with pytest.raises(ValueError, match=r"recording 'r1': .*got stray bytes in .*m.udc80"):
        write([recording(**{where: stray[where]})], tmp_path / "build")
    assert list(tmp_path.iterdir()) == []
