"""A Parquet build is whole or not there, opens with `datasets`, and gives back what was written."""

import dataclasses
import hashlib
import json
import os

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from neurt.dataset_scripts.parquet_build import read_build, read_manifest, write_build
from neurt.dataset_scripts.recording import Recording


def recording(name="r1", neurons=3, frames=4, **changes):
    values = {
        "traces": np.arange(neurons * frames, dtype=np.float32).reshape(neurons, frames),
        "sampling_rate": 5.1,
        "recording_id": name,
        "subject_id": "m1",
        "session_id": "s1",
        "roi_ids": tuple(str(i) for i in range(neurons)),
    }
    return Recording(**(values | changes))


def write(recordings, folder, **changes):
    return write_build(recordings, folder, **({"builder": "test", "parameters": {}} | changes))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_everything_that_was_written_is_read_back(tmp_path):
    full = recording(
        centroids=np.array([[1.5, 2], [np.nan, np.nan], [5, 6]], dtype=np.float32),
        coordinate_unit="um",
        trace_kind="dff",
        accepted=np.array([True, False, True]),
        unit_ids=np.array([2**53 + 1, -1, 7]),
        field=3,
        modality="two-photon",
        brain_area="V1",
        indicator="GCaMP6s",
        segment_starts=(0, 2),
        labels={"genotype": "5xFAD", "age": 8},
        source={"file": "a.mat"},
    )
    write([full], tmp_path / "build")
    (got,) = read_build(tmp_path / "build")
    for field in dataclasses.fields(Recording):
        expected = {"genotype": "5xFAD", "age": "8"} if field.name == "labels" else getattr(full, field.name)
        np.testing.assert_array_equal(getattr(got, field.name), expected, err_msg=field.name)
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
    "name", ["../r", "a/b", "a\\b", "..", ".r", "", "a\0b", "<b>r</b>", "r*", "-r", "r\n", "é" * 101]
)
def test_a_recording_id_that_is_no_safe_file_name_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="safe as a file name"):
        write([recording(name)], tmp_path / "build")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", ["trace", "recording_id", "a b", "<b>", ""])
def test_a_label_that_cannot_be_a_column_is_refused(tmp_path, label):
    with pytest.raises(ValueError, match="label names"):
        write([recording(labels={label: "x"})], tmp_path / "build")


def test_a_label_may_have_the_name_of_an_argument_of_recording(tmp_path):
    write([recording(labels={"source": "lab", "traces": "good"})], tmp_path / "build")
    (got,) = read_build(tmp_path / "build")
    assert got.labels == {"source": "lab", "traces": "good"}


def test_text_from_outside_stays_text_in_the_card(tmp_path):
    labels = {"note": "<script>x</script> | [a](b)\n# c"}
    write([recording(labels=labels)], tmp_path / "build", dropped=[{"recording_id": "<img>", "why": "a\n---\nb"}])
    card = (tmp_path / "build" / "README.md").read_text()
    assert "<script>" not in card and "<img>" not in card and "[a](b)" not in card
    assert "\n# c" not in card and card.count("\n---\n") == 1


def test_a_card_of_simulated_recordings_says_so(tmp_path):
    write([recording()], tmp_path / "real", builder="neurt import")
    write([recording(modality="simulated")], tmp_path / "made")
    assert "simulated" not in (tmp_path / "real" / "README.md").read_text()
    made = (tmp_path / "made" / "README.md").read_text()
    assert "# Neuronal activity, simulated\n" in made and "**All recordings here are simulated.**" in made


def test_a_card_of_some_simulated_recordings_says_how_many(tmp_path):
    write([recording("r1"), recording("r2", modality="two-photon")], tmp_path / "build")
    write([recording("r3", modality="simulated")], tmp_path / "build")
    card = (tmp_path / "build" / "README.md").read_text()
    assert "# Neuronal activity, partly simulated\n" in card and "**1 of 3 recordings here are simulated.**" in card


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
    assert summary.without_neighbour_channels == ("few", "none", "rejected")
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
