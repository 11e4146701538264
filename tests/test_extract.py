"""What EXTRACT leaves in MATLAB files of any version is read, with time first; what it does not say is asked for."""

import numpy as np
import pytest
import scipy.sparse
from damaged_files import damage, damages, reads_or_refuses
from hypothesis import given
from matlab_files import VERSIONS, write_matlab, write_object
from neurt.dataset_scripts.metadata import Facts
from neurt.dataset_scripts.readers import detect
from neurt.dataset_scripts.readers.extract import find_extract, read_extract

FRAMES = 40
TRACES = np.arange(2.0 * FRAMES).reshape(2, FRAMES)
STATED = Facts(sampling_rate=20.0)


def footprints():
    """Images (height 4, width 6) of two neurons: one on (x, y) = (5, 1); one on (0, 3) and (2, 3), weighted 1 to 3."""
    weights = np.zeros((4, 6, 2), dtype=np.float32)
    weights[1, 5, 0] = 2
    weights[3, 0, 1], weights[3, 2, 1] = 1, 3
    return weights


def save(path, version="7", name="output", **changes):
    fields = {
        "spatial_weights": footprints(),
        "temporal_weights": TRACES.T.astype(np.float32),
        "info": {"version": "1.1.0", "runtime": np.array([[3.0]])},
        "config": {"trace_output_option": "baseline_adjusted"},
    }
    fields = {field: value for field, value in (fields | changes).items() if value is not None}
    return write_matlab(path, {name: fields}, version)


def read(path, facts=STATED, trace_kind="dff"):
    return [r for source in find_extract(path).sources for r in read_extract(source, facts, trace_kind=trace_kind)]


@pytest.mark.parametrize("name", ["output", "res"])
@pytest.mark.parametrize("version", VERSIONS)
def test_traces_and_positions_are_read_from_a_structure_of_any_name(tmp_path, version, name):
    save(tmp_path / "m1.mat", version, name)
    assert detect(tmp_path)[0] == "extract"
    (got,) = read(tmp_path)
    np.testing.assert_array_equal(got.traces, TRACES)
    np.testing.assert_allclose(got.centroids, [[5, 1], [1.5, 3]])
    assert got.traces.dtype == np.float32 and got.traces.flags.c_contiguous
    assert (got.coordinate_unit, got.roi_ids, got.recording_id) == ("px", ("0", "1"), "m1")
    assert (got.trace_kind, got.sampling_rate, got.source["sampling_rate_from"]) == ("dff", 20, "stated")


def test_positions_become_micrometres(tmp_path):
    save(tmp_path / "m1.mat")
    (got,) = read(tmp_path, Facts(sampling_rate=20.0, um_per_pixel=2.0))
    np.testing.assert_allclose(got.centroids, [[10, 2], [3, 6]])
    assert got.coordinate_unit == "um"


def test_rate_and_trace_kind_are_asked_for(tmp_path):
    save(tmp_path / "m1.mat")
    with pytest.raises(ValueError, match="got none, as EXTRACT stores none; pass --sampling-rate"):
        read(tmp_path, Facts())
    with pytest.raises(ValueError, match="what the traces are, got a file that does not say; pass --trace-kind"):
        read(tmp_path, trace_kind=None)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_single_neuron_keeps_its_shape(tmp_path, version):
    save(tmp_path / "a.mat", version, spatial_weights=footprints()[:, :, 0], temporal_weights=TRACES[:1].T)
    (got,) = read(tmp_path)
    np.testing.assert_array_equal(got.traces, TRACES[:1])
    np.testing.assert_allclose(got.centroids, [[5, 1]])


def test_a_footprint_without_weight_has_no_position_and_nan_in_traces_stays(tmp_path):
    weights, traces = footprints(), TRACES.copy()
    weights[..., 0], traces[1, 2] = 0, np.nan
    save(tmp_path / "a.mat", spatial_weights=weights, temporal_weights=traces.T)
    (got,) = read(tmp_path)
    np.testing.assert_allclose(got.centroids, [[np.nan, np.nan], [1.5, 3]])
    assert got.source["notes"] == ["footprints without weight have no position"]
    assert np.flatnonzero(np.isnan(got.traces)).tolist() == [FRAMES + 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temporal_weights": TRACES}, r"\(height, width, 40\).*got shape \(4, 6, 2\); temporal.* look transposed"),
        ({"temporal_weights": np.zeros((9, 3))}, r"\(height, width, 3\).*got shape \(4, 6, 2\)$"),
        ({"temporal_weights": TRACES[0][:, None]}, r"\(height, width, 1\)"),
        ({"temporal_weights": "none"}, r"numbers of shape \(frames, neurons\), got str"),
        ({"temporal_weights": np.zeros((0, 2))}, "expected temporal_weights as numbers of shape"),
        ({"spatial_weights": np.full((4, 6, 2), np.inf)}, "expected finite weights"),
        ({"spatial_weights": scipy.sparse.csc_array((24, 2))}, r"save full\(output.spatial_weights\)"),
        ({"spatial_weights": {"a": np.ones((1, 1))}}, "as temporal_weights have 2 columns, got"),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_arrays_that_do_not_fit_together_are_one_plain_line(tmp_path, version, changes, message):
    save(tmp_path / "a.mat", version, **changes)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path)
    assert "a.mat" in str(error.value) and "\n" not in str(error.value)


def test_several_structures_are_not_chosen_from(tmp_path):
    fields = {"spatial_weights": footprints(), "temporal_weights": TRACES.T}
    write_matlab(tmp_path / "a.mat", {"output": fields, "old": fields})
    with pytest.raises(ValueError, match="expected one structure of EXTRACT, got old, output"):
        read(tmp_path)


def test_other_matlab_files_are_passed_over(tmp_path):
    write_matlab(tmp_path / "a.mat", {"output": {"traces": TRACES}})
    write_object(tmp_path / "b.mat", "output", "MException")
    found = find_extract(tmp_path)
    assert found.sources == [] and [file for file, _ in found.passed_over] == ["a.mat", "b.mat"]


@pytest.mark.parametrize("version", VERSIONS)
def test_damage_gives_recordings_or_one_plain_line(tmp_path, version):
    whole = save(tmp_path / "whole" / "a.mat", version).read_bytes()
    path = tmp_path / "a.mat"

    @damages
    @given(damage())
    def check(change):
        path.write_bytes(change(whole))
        reads_or_refuses(lambda: read(path))

    check()
