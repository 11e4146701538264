"""The NWB writer: files shaped like the MICrONS release, read back with h5py alone."""

import dataclasses
import json
import sys

import h5py
import numpy as np
import pytest
from neurt.dataset_scripts import write_nwb
from neurt.dataset_scripts.simulate import Place, simulate_recording, write_study
from neurt.dataset_scripts.simulation_config import SimulationConfig

CONFIG = SimulationConfig(
    subjects_per_group=1, sessions=2, fields=2, neurons=20, artifacts=5, duration=20.0, sampling_rate=6.3
)
PATH = "sub-sim002/sub-sim002_ses-2-scan-1_behavior+image+ophys.nwb"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    pytest.importorskip("pynwb", reason="pip install neurt[nwb]")
    folder = tmp_path_factory.mktemp("simulated") / "scans"
    write_study(CONFIG, folder, "nwb")
    return folder


@pytest.fixture
def scan(study):
    with h5py.File(study / PATH) as file:
        yield file


def the_recording(field):
    return simulate_recording(CONFIG, Place(2, 2, field))


def series_and_plane(scan, field):
    """The traces of a field and the regions they belong to, found through the reference and not through its name."""
    series = scan[f"processing/ophys/Fluorescence/RoiResponseSeries{field}"]
    return series, scan[series["rois"].attrs["table"]]


def test_there_is_one_file_for_each_session_and_nothing_else_but_the_ground_truth(study):
    files = {path.relative_to(study).as_posix() for path in study.rglob("*") if path.is_file()}
    scans = {f"sub-{m}/sub-{m}_ses-{s}-scan-1_behavior+image+ophys.nwb" for m in ("sim001", "sim002") for s in (1, 2)}
    assert files == scans | {"ground_truth.json"}
    assert [path.name for path in study.parent.iterdir()] == ["scans"]


@pytest.mark.parametrize("field", [1, 2])
def test_traces_are_float32_time_by_roi_with_timestamps_and_no_rate(scan, field):
    series, _ = series_and_plane(scan, field)
    assert series["data"].dtype == np.float32 and series["data"].shape == (126, 25)
    np.testing.assert_array_equal(series["data"][()].T, the_recording(field).traces)
    np.testing.assert_allclose(np.diff(series["timestamps"]), 1 / 6.3, rtol=1e-9)
    assert series["timestamps"].attrs["unit"] == "seconds" and series["timestamps"][0] > 0
    assert set(series) == {"data", "rois", "timestamps"}


@pytest.mark.parametrize("field", [1, 2])
def test_regions_are_reached_by_reference_and_numbered_from_1_in_each_field(scan, field):
    series, plane = series_and_plane(scan, field)
    assert plane.name == f"/processing/ophys/ImageSegmentation/PlaneSegmentation{field}"
    np.testing.assert_array_equal(series["rois"], np.arange(25))
    np.testing.assert_array_equal(plane["id"], np.arange(1, 26))
    assert [str(number) for number in plane["id"]] == list(the_recording(field).roi_ids)


@pytest.mark.parametrize("field", [1, 2])
def test_mask_centres_times_grid_spacing_are_the_positions_in_um(scan, field):
    _, plane = series_and_plane(scan, field)
    spacing = 1e6 * scan[f"general/optophysiology/ImagingPlane{field}/grid_spacing"][()]
    centres = [[np.average(axis, weights=mask[mask > 0]) for axis in np.nonzero(mask)] for mask in plane["image_mask"]]
    unweighted = [np.argwhere(mask > 0).mean(axis=0) for mask in plane["image_mask"]]
    assert spacing[0] != spacing[1]
    np.testing.assert_allclose(centres * spacing, the_recording(field).centroids, atol=0.2)
    np.testing.assert_allclose(unweighted * spacing, the_recording(field).centroids, atol=1.0)


def test_masks_cover_the_field_as_width_by_height(scan):
    _, plane = series_and_plane(scan, 1)
    assert plane["image_mask"].shape == (25, 300 / 2.0 + 1, 240 / 2.5 + 1)


@pytest.mark.parametrize("field", [1, 2])
def test_somata_and_artifacts_stand_among_each_other_as_simulated(scan, field):
    _, plane = series_and_plane(scan, field)
    types = plane["mask_type"].asstr()[()].tolist()
    assert types == ["soma" if accepted else "artifact" for accepted in the_recording(field).accepted]
    assert types.count("artifact") == 5 and types != sorted(types) and types != sorted(types, reverse=True)


def test_root_ids_are_int64_that_float64_would_round_and_0_for_artifacts(scan):
    _, plane = series_and_plane(scan, 1)
    root_ids = plane["pt_root_id"][()]
    somata = root_ids[the_recording(1).accepted]
    assert root_ids.dtype == np.int64 and len(set(somata)) == 20
    assert (somata.astype(np.float64).astype(np.int64) != somata).any()
    assert (root_ids[~the_recording(1).accepted] == 0).all()


def test_the_imaging_rate_is_nan_and_the_scan_says_it_is_simulated(scan):
    plane = scan["general/optophysiology/ImagingPlane2"]
    assert np.isnan(plane["imaging_rate"][()]) and plane["origin_coords"].shape == (3,)
    assert scan["general/session_id"].asstr()[()] == "2-scan-1"
    assert scan["general/subject/subject_id"].asstr()[()] == "sim002"
    assert scan["session_description"].asstr()[()].startswith("simulated")


def test_the_ground_truth_names_files_fields_and_planted_mask_ids_of_somata(study, scan):
    truth = json.loads((study / "ground_truth.json").read_text())
    assert len(truth["recordings"]) == 8
    entries = [entry for entry in truth["recordings"] if entry["file"] == PATH]
    assert [(entry["field"], entry["group"], entry["rate_factor"]) for entry in entries] == [
        (1, "planted", 3.0),
        (2, "planted", 3.0),
    ]
    for entry in entries:
        _, plane = series_and_plane(scan, entry["field"])
        type_of = dict(zip(map(str, plane["id"]), plane["mask_type"].asstr()[()], strict=True))
        assert [type_of[roi_id] for roi_id in entry["planted_roi_ids"]] == ["soma"] * 10


def test_without_pynwb_the_error_says_what_to_install_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(ValueError, match=r"pip install neurt\[nwb\]"):
        write_study(CONFIG, tmp_path / "scans", "nwb")
    assert list(tmp_path.iterdir()) == []


def test_positions_that_are_not_in_um_are_refused(tmp_path):
    pytest.importorskip("pynwb", reason="pip install neurt[nwb]")
    in_pixels = dataclasses.replace(the_recording(1), coordinate_unit="px")
    with pytest.raises(ValueError, match="expected positions in µm for NWB masks, got px"):
        write_nwb.write_scan([in_pixels], tmp_path / "scan.nwb", "1-scan-1", (300.0, 240.0))
