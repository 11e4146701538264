"""NWB files as pynwb writes them are read plane by plane; which of several series to take is asked."""

import datetime
from pathlib import Path

import h5py
import numpy as np
import pytest
from damaged_files import damage, damages, reads_or_refuses
from hypothesis import given
from neurt.dataset_scripts.metadata import Facts
from neurt.dataset_scripts.readers import READERS, detect
from neurt.dataset_scripts.readers.nwb import NWB
from neurt.dataset_scripts.readers.source import NothingUsable
from neurt.dataset_scripts.simulate import Place, simulate_recording, write_study
from neurt.dataset_scripts.simulation_config import SimulationConfig

pynwb = pytest.importorskip("pynwb", reason="pip install neurt[nwb]")
# pynwb looks for the table of a series before the series has its place in the file.
pytestmark = pytest.mark.filterwarnings("ignore:The linked table for DynamicTableRegion")

FRAMES = 40
TRACES = np.arange(80, dtype=np.float32).reshape(2, 40)


def plane_of(nwbfile, name, **grid):
    device = nwbfile.devices.get("scope") or nwbfile.create_device(name="scope")
    return nwbfile.create_imaging_plane(
        name=name,
        description="d",
        optical_channel=pynwb.ophys.OpticalChannel(name="green", description="d", emission_lambda=510.0),
        device=device,
        excitation_lambda=920.0,
        indicator="GCaMP6f",
        location="CA1",
        **grid,
    )


def table_of(plane, name, accepted=None, pixels=False):
    """Two ROIs: mask r covers pixels (r, 2) and (r, 4), twice as strong there; ids 5 and 9."""
    table = pynwb.ophys.PlaneSegmentation(name=name, description="d", imaging_plane=plane)
    for r, roi in enumerate((5, 9)):
        mask = np.zeros((4, 6))
        mask[r, 2], mask[r, 4] = 1, 2
        table.add_roi(id=roi, **({"pixel_mask": [(r, 2, 1.0), (r, 4, 2.0)]} if pixels else {"image_mask": mask}))
    if accepted is not None:
        table.add_column(name="Accepted", description="d", data=accepted)
    return table


def series_of(table, name, traces=TRACES, **timing):
    rois = table.create_roi_table_region(region=[0, 1], description="d")
    timing = timing or {"rate": 15.0, "starting_time": 2.0}
    return pynwb.ophys.RoiResponseSeries(name=name, data=traces.T, unit="a.u.", rois=rois, description="d", **timing)


class Scan:
    """An NWB file in the making."""

    def __init__(self, subject="m7", session="day 1"):
        self.nwbfile = pynwb.NWBFile(
            session_description="d",
            identifier="i",
            session_start_time=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
            session_id=session,
            subject=pynwb.file.Subject(subject_id=subject, species="Mus musculus", sex="U", age="P9D"),
        )
        self.module = self.nwbfile.create_processing_module(name="two photon", description="d")
        self.segmentation = pynwb.ophys.ImageSegmentation(name="masks")
        self.module.add(self.segmentation)

    def table(self, name="cells", accepted=None, pixels=False, **grid):
        table = table_of(plane_of(self.nwbfile, f"plane of {name}", **grid), name, accepted, pixels)
        self.segmentation.add_plane_segmentation(table)
        return table

    def add(self, container, *series):
        kind = pynwb.ophys.DfOverF if container == "DfOverF" else pynwb.ophys.Fluorescence
        self.module.add(kind(name=container, roi_response_series=list(series)))

    def save(self, path):
        with pynwb.NWBHDF5IO(path, "w") as io:
            # Without the schema, which is most of so small a file.
            io.write(self.nwbfile, cache_spec=False)
        return path


def simple(path, accepted=None, pixels=False, container="brightness", **grid):
    scan = Scan()
    table = scan.table(accepted=accepted, pixels=pixels, **grid)
    scan.add(container, series_of(table, "all cells"))
    return scan.save(path)


def read(path, facts=None, trace_kind="fluorescence", **options):
    name, found = detect(Path(path))
    assert name == "nwb"
    options |= {"trace_kind": trace_kind} if trace_kind else {}
    return [r for source in found.sources for r in READERS[name].read(source, facts or Facts(), **options)]


def test_a_series_of_any_name_is_read_with_what_the_file_says(tmp_path):
    (got,) = read(simple(tmp_path / "m7.nwb"))
    np.testing.assert_array_equal(got.traces, TRACES)
    np.testing.assert_allclose(got.centroids, [[0, 10 / 3], [1, 10 / 3]], rtol=1e-6)
    assert (got.coordinate_unit, got.sampling_rate, got.roi_ids) == ("px", 15, ("5", "9"))
    assert (got.recording_id, got.subject_id, got.session_id, got.field) == ("m7", "m7", "day 1", None)
    assert (got.indicator, got.brain_area, got.modality) == ("GCaMP6f", "CA1", None)
    assert got.source["series"] == "/processing/two photon/brightness/all cells"
    assert (got.source["sampling_rate_from"], got.source["rois"]) == ("starting_time.rate", 2)
    assert (got.source["accepted_rois"], got.source["notes"]) == (None, [])


def test_lists_of_pixels_are_read_as_masks_are(tmp_path):
    (got,) = read(simple(tmp_path / "a.nwb", pixels=True))
    np.testing.assert_allclose(got.centroids, [[0, 10 / 3], [1, 10 / 3]], rtol=1e-6)


def test_the_grid_gives_micrometres_and_what_is_stated_wins(tmp_path):
    grid = {"grid_spacing": [0.002, 0.003], "grid_spacing_unit": "millimeters"}
    path = simple(tmp_path / "a.nwb", **grid)
    (got,) = read(path)
    np.testing.assert_allclose(got.centroids, [[0, 10], [2, 10]], rtol=1e-6)
    assert got.coordinate_unit == "um"
    facts = Facts(um_per_pixel=6.0, subject="x", session="s", sampling_rate=30.0, brain_area="V1", recording="r")
    (got,) = read(path, facts)
    np.testing.assert_allclose(got.centroids, [[0, 20], [6, 20]], rtol=1e-6)
    assert (got.coordinate_unit, got.recording_id, got.subject_id, got.session_id) == ("um", "r", "x", "s")
    assert (got.sampling_rate, got.source["sampling_rate_from"], got.brain_area) == (30, "stated", "V1")
    assert got.source["notes"] == ["the stated sampling rate was used, not that of starting_time.rate"]


def test_traces_in_df_over_f_say_so_and_others_must_be_named(tmp_path):
    (got,) = read(simple(tmp_path / "a.nwb", container="DfOverF"), trace_kind=None)
    assert got.trace_kind == "dff"
    with pytest.raises(ValueError, match="'dff', got 'events'"):
        read(tmp_path / "a.nwb", trace_kind="events")
    with pytest.raises(ValueError, match=r"b\.nwb: expected to know what the traces are.*pass --trace-kind"):
        list(NWB.read(NWB.find(simple(tmp_path / "b.nwb")).sources[0], Facts()))


def test_rejected_rois_are_left_out_unless_asked_for(tmp_path):
    path = simple(tmp_path / "a.nwb", accepted=[0, 1])
    (got,) = read(path)
    np.testing.assert_array_equal(got.traces, TRACES[1:])
    np.testing.assert_allclose(got.centroids, [[1, 10 / 3]], rtol=1e-6)
    assert (got.roi_ids, got.accepted.tolist()) == (("9",), [True])
    assert (got.source["rois"], got.source["accepted_rois"]) == (2, 1)
    (got,) = read(path, all_rois=True)
    assert (got.roi_ids, got.accepted.tolist()) == (("5", "9"), [False, True])


def test_the_choice_may_stand_beside_its_probability_as_in_suite2p(tmp_path):
    path = simple(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        file["processing/two photon/masks/cells/iscell"] = np.array([[1, 0.2], [0, 0.9]])
    (got,) = read(path)
    assert got.roi_ids == ("5",)


def test_a_plane_without_accepted_rois_leaves_the_others(tmp_path):
    scan = Scan()
    tables = [scan.table("first", accepted=[0, 0]), scan.table("second", accepted=[1, 0])]
    scan.add("brightness", *(series_of(table, f"of {table.name}") for table in tables))
    recordings = NWB.read(NWB.find(scan.save(tmp_path / "a.nwb")).sources[0], Facts(), trace_kind="dff")
    assert next(recordings).recording_id == "a_of second"
    with pytest.raises(NothingUsable, match="none of the 2 ROIs of /processing.*of first is accepted"):
        next(recordings)


def two_planes(path):
    """Fluorescence and neuropil of two planes, named as suite2p names them."""
    scan = Scan()
    tables = [scan.table(name) for name in ("PlaneSegmentation", "PlaneSegmentation2")]
    for factor, container in ((1, "Fluorescence"), (10, "Neuropil")):
        series = (series_of(table, f"plane{i}", (i + factor) * TRACES) for i, table in enumerate(tables))
        scan.add(container, *series)
    return scan.save(path)


def test_several_series_of_the_same_rois_ask_which(tmp_path):
    path = two_planes(tmp_path / "a.nwb")
    with pytest.raises(ValueError, match=r"a\.nwb: .*Fluorescence/plane0, .*Neuropil/plane0; choose with --series"):
        read(path)
    with pytest.raises(ValueError, match=r"expected --series among /processing.*plane1, got 'plane'"):
        read(path, series="plane")
    with pytest.raises(ValueError, match="Fluorescence/plane1, /processing/two photon/Neuropil/plane1; choose"):
        read(path, series="plane1")


def test_a_chosen_name_takes_one_series_of_each_plane(tmp_path):
    first, second = read(two_planes(tmp_path / "a.nwb"), Facts(recording="r"), series="Neuropil")
    np.testing.assert_array_equal(first.traces, 10 * TRACES)
    np.testing.assert_array_equal(second.traces, 11 * TRACES)
    assert (first.recording_id, first.field, first.session_id) == ("r_plane0", 0, "day 1")
    assert (second.recording_id, second.field, second.session_id) == ("r_plane1", 1, "day 1")
    (got,) = read(tmp_path / "a.nwb", series="/processing/two photon/Fluorescence/plane1")
    np.testing.assert_array_equal(got.traces, 2 * TRACES)
    assert (got.recording_id, got.field) == ("a", None)


def test_neuropil_is_subtracted_on_request_and_a_note_says_when_it_was_not(tmp_path):
    path = two_planes(tmp_path / "a.nwb")
    name = "/processing/two photon/Neuropil/plane1"
    (_, plain) = read(path, series="Fluorescence")
    note = f"{name} was not subtracted; --neuropil-coefficient subtracts a share of it"
    assert plain.source["notes"] == [note] and "neuropil_coefficient" not in plain.source
    (_, got) = read(path, series="Fluorescence", neuropil_coefficient=0.5)
    np.testing.assert_array_equal(got.traces, 2 * TRACES - 0.5 * 11 * TRACES)
    assert (got.source["trace"], got.source["neuropil_coefficient"]) == ("F - c Fneu", 0.5)
    assert (got.source["neuropil_series"], got.source["notes"]) == (name, [])
    for options in ({"neuropil_coefficient": 0.0}, {"trace_kind": "dff"}):
        (_, got) = read(path, series="Fluorescence", **options)
        np.testing.assert_array_equal(got.traces, 2 * TRACES)
        assert got.source["notes"] == []


def test_neuropil_is_matched_by_the_rows_of_the_table(tmp_path):
    scan = Scan()
    table = scan.table(accepted=[0, 1])
    scan.add("F", series_of(table, "cells"))
    scan.add("NeuroPil", series_of(table, "around", 10 * TRACES))
    path = scan.save(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        around = file["processing/two photon/NeuroPil/around"]
        around["rois"][:], around["data"][:] = [1, 0], 10 * TRACES[::-1].T
    (got,) = read(path, series="F", neuropil_coefficient=0.1)
    np.testing.assert_allclose(got.traces, 0 * TRACES[1:], atol=1e-5)
    with h5py.File(path, "r+") as file:
        file["processing/two photon/NeuroPil/around/rois"][:] = [1, 3]
    assert "NeuroPil/around was not subtracted" in read(path, series="F")[0].source["notes"][0]
    with h5py.File(path, "r+") as file:
        around = file["processing/two photon/NeuroPil/around"]
        del around["data"]
        around["data"] = 10 * TRACES[:, :30].T
        around["rois"][:] = [1, 0]
    with pytest.raises(ValueError, match="around: expected the 2 ROIs and 40 frames of .*cells, got 2 and 30; leave"):
        read(path, series="F", neuropil_coefficient=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"series": "Neuropil"}, "Neuropil/plane0: expected one series .* neuropil in its path, found none; leave"),
        ({"series": "Fluorescence", "trace_kind": "dff"}, "expected fluorescence to subtract neuropil from, got dff"),
        ({"series": "Fluorescence", "neuropil_coefficient": 7.0}, "from 0 to 1, got 7"),
    ],
)
def test_neuropil_that_cannot_be_subtracted_is_one_plain_line(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as error:
        read(two_planes(tmp_path / "a.nwb"), **{"neuropil_coefficient": 0.7} | options)
    assert "\n" not in str(error.value)


def test_what_was_corrected_for_neuropil_is_no_neuropil(tmp_path):
    scan = Scan()
    table = scan.table()
    scan.add("F", series_of(table, "cells"))
    scan.add("neuropil corrected", series_of(table, "others"))
    path = scan.save(tmp_path / "a.nwb")
    assert read(path, series="F")[0].source["notes"] == []
    with pytest.raises(ValueError, match="neuropil in its path, found none"):
        read(path, series="F", neuropil_coefficient=0.7)


def test_which_series_and_what_it_holds_are_asked_for_at_once(tmp_path):
    path = two_planes(tmp_path / "a.nwb")
    with pytest.raises(ValueError, match="choose with --series .*, and say what it holds with --trace-kind fluoresc"):
        read(path, trace_kind=None)
    with pytest.raises(ValueError, match="a name in its path$"):
        read(path)


def test_artifacts_by_their_mask_type_are_not_accepted(tmp_path):
    path = simple(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        file["processing/two photon/masks/cells/mask_type"] = ["soma", "artifact"]
    (got,) = read(path)
    assert (got.roi_ids, got.source["accepted_rois"], got.source["rois"]) == (("5",), 1, 2)
    (got,) = read(path, all_rois=True)
    assert got.accepted.tolist() == [True, False]
    for types in (["a", "artifact"], [1, 2]):
        with h5py.File(path, "r+") as file:
            del file["processing/two photon/masks/cells/mask_type"]
            file["processing/two photon/masks/cells/mask_type"] = types
        assert read(path)[0].source["accepted_rois"] is None


def test_planes_whose_series_have_one_name_are_told_apart_by_their_tables(tmp_path):
    scan = Scan()
    for name in ("left", "right"):
        scan.add(f"Fluorescence {name}", series_of(scan.table(name), "RoiResponseSeries"))
    assert [got.recording_id for got in read(scan.save(tmp_path / "a.nwb"))] == ["a_left", "a_right"]


def test_timestamps_with_a_hole_give_rate_and_segments(tmp_path):
    times = np.arange(FRAMES) / 8
    times[25:] += 3
    scan = Scan()
    scan.add("brightness", series_of(scan.table(), "s", timestamps=times))
    (got,) = read(scan.save(tmp_path / "a.nwb"))
    assert got.sampling_rate == pytest.approx(8) and got.segment_starts == (0, 25)
    assert got.source["notes"] == ["holes in the timestamps begin a new segment"]


def test_a_mask_of_zeros_is_counted(tmp_path):
    path = simple(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        file["processing/two photon/masks/cells/image_mask"][0] = 0
    (got,) = read(path)
    np.testing.assert_allclose(got.centroids, [[np.nan, np.nan], [1, 10 / 3]], rtol=1e-6)
    assert got.source["notes"] == ["1 of 2 ROIs have a mask of zeros and so no position"]


def test_simulated_microns_files_are_read_field_by_field_and_stay_simulated(tmp_path):
    config = SimulationConfig(subjects_per_group=1, fields=2, neurons=6, artifacts=1, duration=8.0, sampling_rate=6.3)
    write_study(config, tmp_path / "scans", "nwb")
    recordings = read(tmp_path / "scans", all_rois=True)
    assert [got.field for got in recordings] == [1, 2, 1, 2]
    for got, place in zip(recordings[:2], (Place(1, 1, 1), Place(1, 1, 2)), strict=True):
        true = simulate_recording(config, place)
        np.testing.assert_array_equal(got.traces, true.traces)
        np.testing.assert_array_equal(got.accepted, true.accepted)
        # Half a pixel of 2.5 µm, for masks that the border of the field cuts.
        np.testing.assert_allclose(got.centroids, true.centroids, atol=1.3)
        assert got.sampling_rate == pytest.approx(6.3) and got.modality == "simulated"
        assert (got.subject_id, got.session_id, got.coordinate_unit) == ("sim001", "1-scan-1", "um")


def test_files_without_traces_are_passed_over(tmp_path):
    Scan().save(tmp_path / "behaviour.nwb")
    simple(tmp_path / "a.nwb")
    found = NWB.find(tmp_path)
    assert [source.file for source in found.sources] == ["a.nwb"]
    assert found.passed_over == [("behaviour.nwb", "it holds no RoiResponseSeries")]


def test_a_file_that_is_no_hdf5_is_one_plain_line_once_it_is_read(tmp_path):
    (tmp_path / "a.nwb").write_text("no HDF5")
    (source,) = NWB.find(tmp_path).sources
    with pytest.raises(ValueError, match=r"a\.nwb: expected an HDF5 file"):
        list(NWB.read(source, Facts()))


def test_names_with_line_breaks_make_no_message_of_several_lines(tmp_path):
    path = simple(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        file.move("processing/two photon/brightness/all cells", "processing/two photon/brightness/two\nlines")
    for series in ("other", None):
        with pytest.raises(ValueError, match="two lines|what the traces are") as error:
            read(path, series=series, trace_kind=None)
        assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return simple(tmp_path_factory.mktemp("whole") / "a.nwb", accepted=[1, 1]).read_bytes()


@damages
@given(damage=damage())
def test_a_damaged_file_is_read_or_refused_with_one_plain_line(tmp_path, whole, damage):
    path = tmp_path / "a.nwb"
    path.write_bytes(damage(whole))

    def find_and_read():
        for source in NWB.find(tmp_path).sources:
            list(NWB.read(source, Facts(), trace_kind="fluorescence"))

    reads_or_refuses(find_and_read)
