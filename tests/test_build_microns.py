"""The MICrONS build: values from pynwb's files, the same bytes however it is made, bad files refused in one line."""

import json
import os
import re
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from damaged_files import damage, damages, reads_or_refuses
from hypothesis import given
from neurt.dataset_scripts import microns_field
from neurt.dataset_scripts.build_microns import build_microns
from neurt.dataset_scripts.parquet_build import read_build
from neurt.dataset_scripts.simulate import write_study
from neurt.dataset_scripts.simulation_config import SimulationConfig

pytest.importorskip("pynwb", reason="pip install neurt[nwb]")
from microns_scans import CENTROIDS, FIRST_ROOT_ID, KEPT, NAME, traces, write_scan  # noqa: E402
from range_server import serving  # noqa: E402

FIELDS = ["4-7_field1", "4-7_field2", "5-6_field1"]
MOVIE_BYTES = 24 * 2**20


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A folder with scans 4-7, which holds a movie, and 5-6."""
    folder = tmp_path_factory.mktemp("microns") / "sub-17797"
    write_scan(folder / NAME.format(4, 7), movie_bytes=MOVIE_BYTES)
    write_scan(folder / NAME.format(5, 6), session=5, scan=6, fields=(1,))
    return folder


@pytest.fixture(scope="module")
def scan_units(tmp_path_factory):
    path = tmp_path_factory.mktemp("units") / "ScanUnit.csv"
    rows = [(4, 7, 101, 1, 1), (4, 7, 105, 1, 5), (4, 7, 201, 2, 1), (5, 6, 101, 1, 6)]
    pd.DataFrame(rows, columns=["session", "scan_idx", "unit_id", "field", "mask_id"]).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def build(scans, scan_units, tmp_path_factory):
    """The build of both scans, made without interruption; what every other way must give."""
    folder = tmp_path_factory.mktemp("built") / "build"
    build_microns(scans, folder, scan_units=scan_units)
    return folder


@pytest.fixture
def scan(tmp_path):
    """A copy of scan 4-7, without a movie, to be damaged."""
    return write_scan(tmp_path / "scans" / NAME.format(4, 7))


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def hidden(folder):
    return [path.name for path in folder.parent.iterdir() if path.name.startswith(".")]


def recordings(folder):
    return {recording.recording_id: recording for recording in read_build(folder)}


def table_of(folder, name):
    return pq.read_table(folder / f"data/train/{name}.parquet").to_pandas()


def test_every_field_of_the_selected_scans_is_a_recording_of_the_one_mouse(build):
    read = recordings(build)
    assert list(read) == FIELDS
    assert {recording.subject_id for recording in read.values()} == {"17797"}
    assert [recording.session_id for recording in read.values()] == ["4-7", "4-7", "5-6"]
    assert [recording.field for recording in read.values()] == [1, 2, 1]
    assert read["4-7_field1"].indicator == "GCaMP6s" and read["4-7_field1"].brain_area == "visual cortex"
    assert read["4-7_field1"].trace_kind == "fluorescence" and read["4-7_field1"].modality == "two-photon"


def test_traces_are_those_of_the_somata_as_h5py_reads_them(build, scans):
    with h5py.File(scans / NAME.format(4, 7)) as file:
        stored = file["processing/ophys/Fluorescence/RoiResponseSeries1/data"][()]
    recording = recordings(build)["4-7_field1"]
    assert recording.roi_ids == tuple(map(str, KEPT))
    np.testing.assert_array_equal(recording.traces, stored.T[[0, 2, 4, 5]])
    np.testing.assert_array_equal(recordings(build)["5-6_field1"].traces, traces(5, 1).T[[0, 2, 4, 5]])


def test_positions_are_weighted_mask_centres_times_spacing_and_the_origin_stands_apart(build):
    recording = recordings(build)["4-7_field1"]
    np.testing.assert_allclose(recording.centroids, CENTROIDS, rtol=1e-6)
    assert recording.coordinate_unit == "um"
    rows = table_of(build, "4-7_field1")
    np.testing.assert_allclose(rows[["field_x_um", "field_y_um", "field_z_um"]], [[1000, 2000, 300]] * 4, rtol=1e-6)
    assert rows["z_um"].isna().all()


def test_the_frame_rate_comes_from_the_timestamps_and_the_long_first_step_begins_a_segment(build):
    read = recordings(build)
    assert read["4-7_field1"].sampling_rate == pytest.approx(6.25, rel=1e-9)
    assert read["4-7_field1"].segment_starts == (0, 1)
    assert read["4-7_field2"].sampling_rate == pytest.approx(8, rel=1e-9)
    assert read["4-7_field2"].segment_starts == (0,)


def test_root_ids_keep_all_digits_and_are_null_where_no_neuron_is_matched(build):
    column = pq.read_table(build / "data/train/4-7_field1.parquet")["pt_root_id"]
    assert column.to_pylist() == [FIRST_ROOT_ID, FIRST_ROOT_ID + 2, FIRST_ROOT_ID + 4, None]
    assert int(float(FIRST_ROOT_ID)) != FIRST_ROOT_ID
    without = pq.read_table(build / "data/train/4-7_field2.parquet")["pt_root_id"]
    assert str(without.type) == "int64" and without.null_count == len(without) == 2


def test_unit_ids_are_joined_by_session_scan_field_and_mask(build):
    units = {name: pq.read_table(build / f"data/train/{name}.parquet")["unit_id"].to_pylist() for name in FIELDS}
    assert units["4-7_field1"] == [101, None, 105, None]
    assert units["4-7_field2"] == [201, None]
    assert units["5-6_field1"] == [None, None, None, 101]


def test_what_was_left_out_is_counted_with_its_reason(build):
    step = json.loads((build / "manifest.json").read_text())["steps"][0]
    assert [(entry["recording_id"], entry["why"]) for entry in step["dropped"]] == [
        ("4-7", "1 of 9 ROIs are no somata by their mask_type"),
        ("5-6", "1 of 6 ROIs are no somata by their mask_type"),
        ("4-7_field1", "1 of 6 ROIs have a mask of zeros: mask_id 4"),
        ("4-7_field2", "1 of 3 ROIs have a trace with NaN or infinite frames, or a constant one: mask_id 3"),
        ("5-6_field1", "1 of 6 ROIs have a mask of zeros: mask_id 4"),
    ]


def test_the_manifest_says_what_was_chosen_and_no_path(build, scans, scan_units):
    text = (build / "manifest.json").read_text()
    assert str(scans) not in text and str(scan_units) not in text and "http" not in text.replace("https://doi.org", "")
    manifest = json.loads(text)
    assert manifest["steps"][0]["builder"] == "neurt build-microns"
    assert manifest["steps"][0]["parameters"].keys() == {"scans", "masks", "scan_units"}
    assert manifest["steps"][0]["parameters"]["scans"] == "4-7, 5-6"
    source = manifest["files"][0]["source"]
    assert source["file"] == NAME.format(4, 7) and source["sampling_rate_from"] == "timestamps"
    assert (source["rois"], source["accepted_rois"], source["um_per_pixel"]) == (6, 5, [2.0, 2.5])


def test_the_card_names_licence_citation_and_changes(build):
    card = (build / "README.md").read_text()
    assert "license: cc-by-4.0" in card and "10.1038/s41586-025-08790-w" in card and "dandiset 000402" in card
    assert "unique within a scan only" in card.replace("\\", "")


def test_all_masks_keep_artifacts_as_rejected(scan, tmp_path):
    build_microns(scan, tmp_path / "build", masks="all")
    recording = recordings(tmp_path / "build")["4-7_field1"]
    assert recording.roi_ids == ("1", "2", "3", "5", "6")
    assert recording.accepted.tolist() == [True, False, True, True, True]
    assert table_of(tmp_path / "build", "4-7_field1")["mask_type"].tolist()[:2] == ["soma", "artifact"]


def test_a_url_gives_the_bytes_that_the_disk_gives_and_reads_less_than_a_tenth(scans, tmp_path):
    pytest.importorskip("remfile", reason="pip install neurt[dandi]")
    path = scans / NAME.format(4, 7)
    build_microns(path, tmp_path / "disk" / "build")
    with serving(scans) as server:
        build_microns(f"{server.url}/{path.name}", tmp_path / "url" / "build")
    assert contents(tmp_path / "url" / "build") == contents(tmp_path / "disk" / "build")
    assert hidden(tmp_path / "url" / "build") == []
    assert 0 < server.sent < path.stat().st_size / 10


def test_a_server_that_fails_ends_the_build_in_one_line_and_the_same_command_continues(scans, tmp_path):
    pytest.importorskip("remfile", reason="pip install neurt[dandi]")
    path = scans / NAME.format(5, 6)
    with serving(scans) as server:
        server.refuses_from = path.stat().st_size // 2
        with pytest.raises(ValueError, match=rf"{re.escape(path.name)}.*403") as refused:
            build_microns(f"{server.url}/{path.name}", tmp_path / "build")
        assert "\n" not in str(refused.value) and not (tmp_path / "build").exists()
        server.refuses_from = None
        build_microns(f"{server.url}/{path.name}", tmp_path / "build")
    assert list(recordings(tmp_path / "build")) == ["5-6_field1"]


@pytest.fixture
def built_fields(monkeypatch):
    """The fields that are read from their files, in order."""
    fields, read = [], microns_field.read_field

    def recorded(job, staging):
        fields.append(job.recording_id)
        return read(job, staging)

    monkeypatch.setattr(microns_field, "read_field", recorded)
    return fields


@pytest.fixture
def interrupted(scans, scan_units, tmp_path, monkeypatch):
    """The output of a build that ended before its last field, with two fields staged."""

    def fails(job, staging):
        if job.recording_id == "5-6_field1":
            raise ValueError("no such field")
        return read(job, staging)

    read = microns_field.read_field
    with monkeypatch.context() as patched, pytest.raises(ValueError, match="5-6_field1: no such field"):
        patched.setattr(microns_field, "read_field", fails)
        build_microns(scans, tmp_path / "build", scan_units=scan_units)
    assert not (tmp_path / "build").exists()
    return tmp_path / "build"


@pytest.fixture
def finished(interrupted, scans, scan_units, built_fields, build):
    """Give the command again; returns the fields that were built then, after a check that all bytes are as ever."""

    def finish(**options):
        summary = build_microns(scans, interrupted, **{"scan_units": scan_units, **options})
        if not options:
            assert contents(interrupted) == contents(build)
        assert hidden(interrupted) == [] and summary.before == 3 - len(built_fields)
        return built_fields

    return finish


def test_the_same_command_continues_with_the_field_that_failed(finished):
    assert finished() == ["5-6_field1"]


def staged_files(output):
    return sorted((output.parent / f".{output.name}.fields").rglob("*4-7_field2*"))


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_a_staged_file_that_is_gone_or_torn_is_built_again(interrupted, finished, suffix):
    [path] = [path for path in staged_files(interrupted) if path.suffix == suffix]
    path.write_bytes(path.read_bytes()[:-20])
    assert finished() == ["4-7_field2", "5-6_field1"]


def test_a_staged_file_that_is_gone_is_built_again(interrupted, finished):
    for path in staged_files(interrupted):
        path.unlink()
    assert finished() == ["4-7_field2", "5-6_field1"]


def test_fields_staged_with_other_flags_are_built_anew(finished):
    assert finished(masks="all") == FIELDS


def test_only_fields_whose_units_changed_are_built_anew(finished, scan_units, tmp_path):
    table = pd.read_csv(scan_units)
    table.assign(unit_id=[101, 105, 202, 101]).to_csv(tmp_path / "other.csv", index=False)
    assert finished(scan_units=tmp_path / "other.csv") == ["4-7_field2", "5-6_field1"]


def test_fields_of_a_file_that_was_replaced_are_built_anew(finished, scans):
    path = scans / NAME.format(4, 7)
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert finished() == FIELDS


def test_a_complete_build_is_left_as_it_is_and_what_a_killed_process_left_goes(build, scans, scan_units, built_fields):
    (build.parent / ".build.fields").mkdir()
    before = contents(build)
    summary = build_microns(scans, build, scan_units=scan_units)
    assert str(summary).startswith("nothing to do: 3 fields of 2 scans are there")
    assert contents(build) == before and built_fields == [] and hidden(build) == []


def test_scans_are_added_to_a_build_and_only_they_are_read(scans, tmp_path, built_fields):
    build_microns(scans, tmp_path / "build", scans=["5-6"])
    summary = build_microns(scans, tmp_path / "build")
    assert built_fields == ["5-6_field1", "4-7_field1", "4-7_field2"] and summary.before == 1
    assert list(recordings(tmp_path / "build")) == FIELDS


def test_fields_that_a_build_holds_otherwise_are_not_mixed_with_others(scans, tmp_path):
    build_microns(scans, tmp_path / "build", scans=["5-6"])
    before = contents(tmp_path / "build")
    with pytest.raises(ValueError, match="one that holds 5-6_field1 made otherwise; choose another --output"):
        build_microns(scans, tmp_path / "build", masks="all")
    assert contents(tmp_path / "build") == before


def test_fields_of_a_file_of_another_name_or_size_are_not_taken_for_those_in_a_build(scan, tmp_path):
    build_microns(scan, tmp_path / "build")
    before = contents(tmp_path / "build")
    assert recordings(tmp_path / "build")["4-7_field1"].source["bytes"] == scan.stat().st_size
    size = scan.stat().st_size
    other = scan.rename(scan.with_name("other_ses-4-scan-7.nwb"))
    with pytest.raises(ValueError, match=re.escape(f"{scan.name} ({size} bytes), got {other.name} ({size} bytes)")):
        build_microns(other, tmp_path / "build")
    with h5py.File(other.rename(scan), "a") as file:
        file["added_in_another_release"] = np.zeros(999)
    with pytest.raises(ValueError, match=re.escape(f"({size} bytes), got {scan.name} ({scan.stat().st_size} bytes)")):
        build_microns(scan, tmp_path / "build")
    assert contents(tmp_path / "build") == before


def test_what_is_added_to_a_build_is_told_from_what_it_holds(scans, tmp_path):
    build_microns(scans, tmp_path / "build", scans=["5-6"])
    text = str(build_microns(scans, tmp_path / "build"))
    assert text.startswith("built 2 of 3 fields of 2 scans, 1 there from before: 4-7, 5-6\n")
    assert "added: 2 recordings, counted below; the build now holds 3 with 10 neurons\nneurons: 6," in text


def test_a_folder_with_other_files_is_refused_before_anything_is_read(scans, tmp_path, built_fields):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="expected a NEuRT build"):
        build_microns(scans, tmp_path)
    assert built_fields == []


KILLER = """
import os, random, shutil, signal, sys, time
from pathlib import Path
from neurt.dataset_scripts.build_microns import build_microns

source, folder, moments = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

def begin(output):
    child = os.fork()
    if child == 0:
        build_microns(source, output)
        os._exit(0)
    return child

start = time.monotonic()
os.waitpid(begin(folder / "whole"), 0)
duration = time.monotonic() - start
whole = {p.relative_to(folder / "whole"): p.read_bytes() for p in (folder / "whole").rglob("*") if p.is_file()}
moment = random.Random(0)
for i in range(moments):
    output = folder / f"killed{i}"
    child = begin(output)
    time.sleep(moment.random() * duration)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    was_there, staged = output.exists(), len(list((folder / f".killed{i}.fields").rglob("*.json")))
    assert os.waitpid(begin(output), 0)[1] == 0
    built = {p.relative_to(output): p.read_bytes() for p in output.rglob("*") if p.is_file()}
    left = [p.name for p in folder.iterdir() if p.name.startswith(".")]
    print(os.WIFSIGNALED(status), was_there, staged, built == whole, left)
"""


def test_a_build_killed_at_random_moments_ends_with_the_same_bytes(scans, tmp_path):
    moments = 4
    command = [sys.executable, "-c", KILLER, scans, tmp_path, str(moments)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == moments and all(line.endswith("True []") for line in lines), lines
    assert sum(line.startswith("True") for line in lines) >= moments / 2, "too few were killed in time"


def test_a_process_of_its_own_gives_the_same_bytes(interrupted, scans, scan_units, build):
    # For the one field that is missing: each new process takes seconds to import torch.
    assert build_microns(scans, interrupted, scan_units=scan_units, jobs=2).before == 2
    assert contents(interrupted) == contents(build)


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("distributed", reason="pip install neurt[cluster]")
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**settings) as cluster:
        yield cluster


def test_two_workers_of_a_dask_cluster_give_the_same_bytes(cluster, scans, scan_units, build, tmp_path):
    build_microns(scans, tmp_path / "build", scan_units=scan_units, scheduler=cluster.scheduler_address)
    assert contents(tmp_path / "build") == contents(build)


def test_a_field_that_fails_on_a_cluster_is_named_in_one_line(cluster, scan, tmp_path):
    with h5py.File(scan, "r+") as file:
        del file["processing/ophys/Fluorescence/RoiResponseSeries2/rois"]
    with pytest.raises(ValueError, match="^4-7_field2: .*RoiResponseSeries2.*expected rois"):
        build_microns(scan, tmp_path / "build", scheduler=cluster.scheduler_address)


@pytest.mark.parametrize("address", ["nowhere", "tcp://127.0.0.1:9"])
def test_a_scheduler_that_does_not_answer_is_named(scan, tmp_path, monkeypatch, address):
    pytest.importorskip("distributed", reason="pip install neurt[cluster]")
    monkeypatch.setattr("neurt.dataset_scripts.field_runners.CONNECT_SECONDS", 0.2)
    with pytest.raises(ValueError, match=f"--scheduler: expected the address of a running.*got '{address}'"):
        build_microns(scan, tmp_path / "build", scheduler=address)


def test_without_the_extra_a_cluster_is_refused_with_what_to_install(scan, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"pip install neurt\[cluster\]"):
        build_microns(scan, tmp_path / "build", scheduler="tcp://127.0.0.1:9")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": "dendrite"}, "--masks: expected soma or all, got 'dendrite'"),
        ({"jobs": 0}, "--jobs: expected at least 1, got 0"),
        ({"jobs": 2, "scheduler": "tcp://127.0.0.1:9"}, "--jobs: expected only without --scheduler"),
    ],
)
def test_options_that_cannot_be_are_refused(scan, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        build_microns(scan, tmp_path / "build", **options)


SERIES = "processing/ophys/Fluorescence/RoiResponseSeries2"
TABLE = "processing/ophys/ImageSegmentation/PlaneSegmentation2"
PLANE = "general/optophysiology/ImagingPlane2"


def replace(file, path, values):
    attributes = dict(file[path].attrs)
    del file[path]
    file[path] = values
    file[path].attrs.update(attributes)


def swap_steps(file):
    file[f"{SERIES}/timestamps"][10:12] = file[f"{SERIES}/timestamps"][10:12][::-1]


def add_root_ids(file):
    file[f"{TABLE}/pt_root_id"] = np.array([FIRST_ROOT_ID] * 3, dtype=np.float64)


BROKEN = {
    "no segmentation": (lambda file: file.__delitem__(f"{SERIES}/rois"), "expected rois that refer to"),
    "time runs back": (swap_steps, "expected regular timestamps"),
    "ids repeat": (lambda file: file[f"{TABLE}/id"].__setitem__(slice(None), [1, 2, 2]), "repeated ids 2"),
    "frames disagree": (lambda file: replace(file, f"{SERIES}/timestamps", np.arange(150) / 8), "150 timestamps"),
    "transposed": (lambda file: replace(file, f"{SERIES}/data", traces(4, 2).T), "transposed"),
    "float root ids": (add_root_ids, "expected whole numbers in pt_root_id, got float64"),
    "unknown unit": (lambda file: file[f"{PLANE}/grid_spacing"].attrs.__setitem__("unit", "px"), "got 'px'"),
    "no spacing": (lambda file: file.__delitem__(f"{PLANE}/grid_spacing"), "expected grid_spacing"),
    "no mask types": (lambda file: file.__delitem__(f"{TABLE}/mask_type"), "expected a column mask_type"),
    "no masks": (lambda file: file.__delitem__(f"{TABLE}/image_mask"), "expected image_mask"),
    "empty": (lambda file: replace(file, f"{SERIES}/data", np.zeros((0, 3), "f4")), "got shape"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_field_that_does_not_hold_together_ends_the_build_in_one_line_and_the_others_stay(scan, tmp_path, name):
    break_it, message = BROKEN[name]
    with h5py.File(scan, "r+") as file:
        break_it(file)
    with pytest.raises(ValueError, match=rf"^4-7_field2: .*{re.escape(scan.name)}.*{message}") as refused:
        build_microns(scan, tmp_path / "build")
    assert "\n" not in str(refused.value) and not (tmp_path / "build").exists()
    assert (tmp_path / ".build.fields" / "fields" / "4-7_field1.json").exists()


def test_a_field_without_a_soma_is_left_out_and_not_looked_for_again(scan, tmp_path):
    with h5py.File(scan, "r+") as file:
        file[f"{TABLE}/mask_type"][:] = "artifact"
    summary = build_microns(scan, tmp_path / "build")
    assert "4-7_field2: none of its 3 ROIs is a soma with a mask and an activity" in str(summary)
    assert list(recordings(tmp_path / "build")) == ["4-7_field1"]
    assert build_microns(scan, tmp_path / "build").build is None


def test_a_file_under_the_name_of_another_scan_is_refused(scan, tmp_path):
    moved = shutil.move(scan, scan.with_name(NAME.format(9, 3)))
    with pytest.raises(ValueError, match="expected scan 9-3 as in its name, got 4-7 inside"):
        build_microns(moved, tmp_path / "build")


def test_a_file_without_fields_is_refused(scan, tmp_path):
    with h5py.File(scan, "r+") as file:
        del file["processing/ophys/Fluorescence"]
    with pytest.raises(ValueError, match="expected RoiResponseSeries1, 2 .*got none"):
        build_microns(scan, tmp_path / "build")


def test_a_full_disk_leaves_no_build_and_keeps_the_fields(scan, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left on device"):
        patched.setattr("neurt.dataset_scripts.build_microns.finish_build", full)
        build_microns(scan, tmp_path / "build")
    assert not (tmp_path / "build").exists()
    assert build_microns(scan, tmp_path / "build").before == 2


def test_a_simulated_scan_says_so_and_cites_no_one(tmp_path):
    config = SimulationConfig(subjects_per_group=1, fields=1, neurons=8, artifacts=1, duration=10, sampling_rate=6.3)
    write_study(config, tmp_path / "scans", "nwb")
    summary = build_microns(tmp_path / "scans" / "sub-sim001", tmp_path / "build", scans=["1-1"])
    assert recordings(tmp_path / "build")["1-1_field1"].simulated
    assert "MICrONS Consortium" not in (tmp_path / "build" / "README.md").read_text()
    assert summary.build.num_neurons == 8


def test_the_summary_counts_and_names_what_is_missing(scans, tmp_path):
    text = str(build_microns(scans, tmp_path / "build"))
    assert "built 3 of 3 fields of 2 scans, 0 there from before: 4-7, 5-6" in text
    assert "neurons: 10" in text and "sampling rate: 6.25 to 8 Hz" in text
    assert "12 of the 14 selected scans are not there: 5-7," in text
    assert "holes in the timestamps begin a new segment in 2 fields: 4-7_field1, 5-6_field1" in text
    assert "no unit_id: give the exported ScanUnit table with --scan-units" in text


def test_a_damaged_scan_is_built_or_refused_with_one_plain_line(scan, tmp_path):
    whole = scan.read_bytes()
    output = tmp_path / "build"

    @damages
    @given(damage())
    def check(apply):
        scan.write_bytes(apply(whole))
        shutil.rmtree(output, ignore_errors=True)
        refused = reads_or_refuses(lambda: build_microns(scan, output))
        assert output.exists() == (refused is None)

    check()
