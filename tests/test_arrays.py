"""Plain arrays are read when they say what they are, and refused with one line when they do not."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from damaged_files import damage, damages, reads_or_refuses
from hypothesis import given
from hypothesis import strategies as st
from neurt.dataset_scripts.metadata import Facts
from neurt.dataset_scripts.readers import READERS, detect

TRACES = np.arange(120, dtype=np.float64).reshape(3, 40)
A = 7 * np.arange(40) % 40  # up and down, as no clock goes


def read(path, facts=None, **options):
    name, found = detect(Path(path))
    facts = facts or Facts()
    return [r for source in found.sources for r in READERS[name].read(source, facts, **options)]


def save_npz(path, **changes):
    arrays = {"traces": TRACES, "sampling_rate": 5.0, "trace_kind": "dff"} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def save_csv(path, header="time_s,a,b", rows=40, step=0.2, edit=None):
    lines = [header, *(f"{i * step:.3f},{A[i]},{10 * A[i]}" for i in range(rows))]
    if edit:
        lines[edit[0]] = edit[1]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_an_archive_is_read_with_everything_in_it(tmp_path):
    path = save_npz(
        tmp_path / "m1.npz",
        centroids=np.array([[1, 2], [3, 4], [5, 6]]),
        coordinate_unit="um",
        roi_ids=np.array(["a", "b", "c"]),
        unit_ids=np.array([7, 8, -1]),
        accepted=np.array([1, 0, 1]),
        segment_starts=np.array([0, 20]),
        recording_id="rec",
        subject_id="mouse",
        session_id="day 1",
        field=2,
        brain_area="CA1",
        indicator="GCaMP6f",
        modality="one-photon",
    )
    (got,) = read(path)
    np.testing.assert_array_equal(got.traces, TRACES)
    np.testing.assert_array_equal(got.centroids, [[1, 2], [3, 4], [5, 6]])
    assert got.traces.dtype == np.float32 and got.coordinate_unit == "um"
    assert (got.roi_ids, got.unit_ids.tolist(), got.accepted.tolist()) == (
        ("a", "b", "c"),
        [7, 8, -1],
        [True, False, True],
    )
    assert (got.recording_id, got.subject_id, got.session_id, got.field) == ("rec", "mouse", "day 1", 2)
    assert (got.brain_area, got.indicator, got.modality) == ("CA1", "GCaMP6f", "one-photon")
    assert (got.segment_starts, got.sampling_rate, got.trace_kind) == ((0, 20), 5.0, "dff")


def test_the_least_that_an_archive_needs_is_traces_and_facts(tmp_path):
    path = save_npz(tmp_path / "m1.npz", sampling_rate=None, trace_kind=None)
    (got,) = read(path, Facts(sampling_rate=20.0), trace_kind="events")
    assert (got.recording_id, got.subject_id, got.roi_ids) == ("m1", "m1", ("0", "1", "2"))
    assert (got.sampling_rate, got.trace_kind, got.centroids) == (20, "events", None)


def test_what_is_stated_wins_over_what_is_inside(tmp_path):
    (got,) = read(save_npz(tmp_path / "a.npz", subject_id="inside"), Facts(sampling_rate=8.0, subject="stated"))
    assert (got.sampling_rate, got.subject_id, got.source["sampling_rate_from"]) == (8, "stated", "stated")


def test_pixels_become_micrometres_and_micrometres_stay(tmp_path):
    centroids = np.array([[1, 2], [3, 4], [5, np.nan]])
    facts = Facts(um_per_pixel=2.0)
    for unit, expected in (("px", [[2, 4], [6, 8], [10, np.nan]]), ("um", centroids), (None, 2 * centroids)):
        (got,) = read(save_npz(tmp_path / "a.npz", centroids=centroids, coordinate_unit=unit), facts)
        np.testing.assert_array_equal(got.centroids, expected)
        assert got.coordinate_unit == "um"


def test_the_digest_is_of_the_numbers_not_of_the_file(tmp_path):
    np.savez_compressed(tmp_path / "b.npz", traces=TRACES, sampling_rate=5.0, trace_kind="dff")
    (plain,), (packed,) = read(save_npz(tmp_path / "a.npz")), read(tmp_path / "b.npz")
    (other,) = read(save_npz(tmp_path / "a.npz", traces=TRACES + 1))
    assert plain.source["sha256"] == packed.source["sha256"] != other.source["sha256"]


def test_keys_that_are_not_read_are_named(tmp_path):
    (got,) = read(save_npz(tmp_path / "a.npz", speed=np.zeros(40)))
    assert got.source["notes"] == ["keys that are not read: speed"]
    (got,) = read(save_npz(tmp_path / "b.npz", subject=np.array("m1"), speed=np.zeros(40), subject_id=None))
    assert got.source["notes"] == ["keys that are not read: speed, subject; did you mean subject_id?"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"traces": TRACES.T, "roi_ids": np.arange(3)}, r"3 roi_ids, got shape \(40, 3\); traces look transposed"),
        ({"traces": TRACES.T, "centroids": np.zeros((3, 2)), "coordinate_unit": "um"}, "save traces.T"),
        ({"roi_ids": np.arange(4)}, "one row for each of 4 roi_ids"),
        ({"roi_ids": np.array(["a", "a", "b"])}, "unique roi_ids.*repeated a"),
        ({"traces": TRACES[0]}, "expected numbers of two dimensions"),
        ({"traces": np.full((3, 40), "x")}, "traces: expected numbers of two dimensions"),
        (
            {"centroids": np.full((3, 2), "x"), "coordinate_unit": "um"},
            "centroids: expected numbers of two dimensions",
        ),
        ({"field": 1.5}, "expected one whole number in .field., got float64"),
        ({"subject_id": ["a", "b"]}, r"expected one text in .subject_id., got <U1 of shape \(2,\)"),
        ({"centroids": np.zeros((3, 2))}, 'coordinate_unit "um" or "px".*got none; .*--um-per-pixel'),
        ({"centroids": np.zeros((3, 2)), "coordinate_unit": "mm"}, "got 'mm'"),
        ({"centroids": np.zeros((3, 3)), "coordinate_unit": "um"}, r"centroids of shape \(neurons, 2\)"),
        ({"sampling_rate": None}, "expected a sampling rate in Hz, got none inside; pass --sampling-rate"),
        ({"sampling_rate": 0.0}, "expected a sampling rate in Hz, got 0"),
        ({"sampling_rate": np.array([1.0, 2.0])}, "one number in 'sampling_rate'"),
        ({"trace_kind": None}, "pass --trace-kind fluorescence, dff, denoised, deconvolved or events"),
        ({"trace_kind": "speed"}, "got 'speed'"),
        ({"unit_ids": np.array([1.0, 2.0, 3.0])}, "expected unit_ids as whole numbers"),
        ({"segment_starts": np.array([0, 99])}, "increasing segment_starts"),
        ({"roi_ids": np.array([{}, {}, {}], dtype=object)}, "got Python objects in 'roi_ids'"),
    ],
)
def test_an_archive_that_does_not_fit_together_is_one_plain_line(tmp_path, changes, message):
    path = save_npz(tmp_path / "a.npz", **changes)
    with pytest.raises(ValueError, match=message) as error:
        read(path)
    assert "a.npz" in str(error.value) or "'a'" in str(error.value)


def test_a_trace_kind_that_contradicts_the_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'dff', got 'events'"):
        read(save_npz(tmp_path / "a.npz"), trace_kind="events")


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_archive_is_one_plain_line(tmp_path, share):
    path = save_npz(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"a\.npz: expected an \.npz archive"):
        read(path)


def test_an_archive_damaged_inside_is_one_plain_line(tmp_path):
    path = save_npz(tmp_path / "a.npz")
    data = bytearray(path.read_bytes())
    data[300:400] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.npz: expected an \.npz archive"):
        read(path)


def test_a_table_has_one_column_per_neuron_and_its_times_give_the_rate(tmp_path):
    (got,) = read(save_csv(tmp_path / "m1.csv"), trace_kind="fluorescence")
    assert got.roi_ids == ("a", "b") and got.sampling_rate == pytest.approx(5.0)
    np.testing.assert_array_equal(got.traces, [A, 10 * A])
    assert (got.segment_starts, got.centroids, got.recording_id) == ((0,), None, "m1")


def test_a_table_without_times_needs_a_rate(tmp_path):
    path = save_csv(tmp_path / "m1.csv", header="c,a,b", edit=(40, "0,1,2"))
    with pytest.raises(ValueError, match="no column time_s; pass --sampling-rate"):
        read(path, trace_kind="dff")
    (got,) = read(path, Facts(sampling_rate=3.0), trace_kind="dff")
    assert got.roi_ids == ("c", "a", "b") and got.sampling_rate == 3


def test_a_jump_in_the_times_begins_a_segment(tmp_path):
    (got,) = read(save_csv(tmp_path / "a.csv", rows=40, edit=(40, "99.0,1,2")), trace_kind="dff")
    assert got.segment_starts == (0, 39) and got.sampling_rate == pytest.approx(5.0)
    assert got.source["notes"] == ["jumps in time_s begin a new segment"]


@pytest.mark.parametrize(("unit", "scale"), [("um", 1), ("px", 2)])
def test_positions_come_from_a_second_table_by_name(tmp_path, unit, scale):
    save_csv(tmp_path / "m1.csv")
    (tmp_path / "where.csv").write_text(f"roi_id,x_{unit},y_{unit}\nb,3,4\na,1,\n")
    facts = Facts(positions="where.csv", um_per_pixel=2.0)
    (got,) = read(tmp_path, facts, trace_kind="dff")
    np.testing.assert_array_equal(got.centroids, np.array([[1, np.nan], [3, 4]]) * scale)
    assert got.coordinate_unit == "um"


def test_positions_may_be_given_from_where_the_command_runs(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    save_csv(tmp_path / "in" / "m1.csv")
    (tmp_path / "in" / "where.csv").write_text("roi_id,x_um,y_um\nb,3,4\na,1,2\n")
    monkeypatch.chdir(tmp_path)
    (got,) = read(tmp_path / "in", Facts(positions="in/where.csv"), trace_kind="dff")
    np.testing.assert_array_equal(got.centroids, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ("roi_id,x_um,y_um\na,1,2\n", "none for 'b'"),
        ("roi_id,x_um,y_um\na,1,2\nb,1,2\nc,1,2\n", "one for 'c'"),
        ("roi_id,x_um,y_um\na,1,2\na,1,2\n", "each roi_id once"),
        ("roi_id,x,y\na,1,2\nb,1,2\n", "x_um, y_um or x_px, y_px"),
        ("roi_id,x_um,y_um\na,left,2\nb,1,2\n", "Row #2.* invalid value 'left'"),
        ("roi_id,x_um,y_um\n" + "".join(f"n{i},1,2\n" for i in range(40)), "none for 'a'; the traces look transposed"),
        (None, "found none"),
    ],
)
def test_positions_of_other_neurons_are_one_plain_line(tmp_path, positions, message):
    path = save_csv(tmp_path / "m1.csv")
    if positions:
        (tmp_path / "where.csv").write_text(positions)
    with pytest.raises(ValueError, match=message):
        read(path, Facts(positions="where.csv"), trace_kind="dff")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edit": (7, "1.2,x,3")}, r"CSV column #1: Row #8: .* invalid value 'x'"),
        ({"edit": (7, "1.2,1,2,3")}, "a CSV table"),
        ({"edit": (7, "0.1,1,2")}, "a time in each line, after the one before, got another at line 8"),
        ({"edit": (7, ",1,2")}, "a time in each line, after the one before, got another at line 8"),
        ({"header": "time_s,a"}, "Expected 2 columns, got 3"),
        ({"header": "time_s,a,a"}, "each column once, got 'a' more than once"),
        ({"header": ",a,b"}, "expected a name for every column, got none for column 1"),
        ({"header": ""}, "empty first line"),
        ({"rows": 0}, "lines of values below the header, got none"),
    ],
)
def test_a_table_that_is_no_table_of_numbers_is_one_plain_line(tmp_path, changes, message):
    path = save_csv(tmp_path / "a.csv", **changes)
    with pytest.raises(ValueError, match=message) as error:
        read(path, trace_kind="dff")
    assert "\n" not in str(error.value)


def test_values_that_are_missing_or_too_large_are_read_as_they_are(tmp_path):
    (table,) = read(save_csv(tmp_path / "a.csv", edit=(7, "1.2,,3")), trace_kind="dff")
    assert np.isnan(table.traces).nonzero() == (0, 6) and table.traces[1, 6] == 3
    (archive,) = read(save_npz(tmp_path / "b.npz", traces=np.full((3, 40), 1e60)))
    assert np.isinf(archive.traces).all()


def test_a_table_of_times_alone_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("time_s\n0\n1\n")
    with pytest.raises(ValueError, match="expected one column per neuron, got none beside time_s"):
        read(tmp_path / "a.csv", trace_kind="dff")


@pytest.mark.parametrize("name", ["time", "Time (ms)", "frame"])
def test_times_and_frame_numbers_under_other_names_are_no_neurons(tmp_path, name):
    message = rf"m1\.csv: expected the trace .* got {re.escape(repr(name))}, which increases .* call it time_s if it"
    with pytest.raises(ValueError, match=message):
        read(save_csv(tmp_path / "m1.csv", header=f"{name},a,b"), Facts(sampling_rate=5.0), trace_kind="dff")
    # As seconds since 1970 they do not increase any more in float32.
    stamps = [f"{1.7e9 + i / 5:.1f},{i / 5:.1f},{A[i]}" for i in range(40)]
    (tmp_path / "m2.csv").write_text("\n".join([f"{name},time_s,a", *stamps]))
    with pytest.raises(ValueError, match=message.replace("m1", "m2")):
        read(tmp_path / "m2.csv", trace_kind="dff")


def test_a_first_line_of_values_is_no_line_of_names(tmp_path):
    for values in ("0.5,-1.2,3", "1,2,nan", "-1,2,3"):
        with pytest.raises(ValueError, match=r"m1\.csv: expected the names of the columns .* got numbers \("):
            read(save_csv(tmp_path / "m1.csv", header=values, rows=10), Facts(sampling_rate=5.0), trace_kind="dff")
    for names in ("0,1,2", "0.0,1.0,2.0", "7,a,0.5"):
        path = save_csv(tmp_path / "m1.csv", header=names, rows=10)
        (got,) = read(path, Facts(sampling_rate=5.0), trace_kind="dff")
        assert got.roi_ids == tuple(names.split(","))


def test_a_few_lines_may_rise_by_chance(tmp_path):
    (got,) = read(save_csv(tmp_path / "m1.csv", header="c,a,b", rows=10), Facts(sampling_rate=5.0), trace_kind="dff")
    assert got.roi_ids == ("c", "a", "b")


def test_a_rate_that_contradicts_the_times_is_refused(tmp_path):
    with pytest.raises(ValueError, match="near the 5 Hz of its column time_s, got 30"):
        read(save_csv(tmp_path / "a.csv"), Facts(sampling_rate=30.0), trace_kind="dff")


def test_a_table_in_another_encoding_is_one_plain_line(tmp_path):
    (tmp_path / "a.csv").write_bytes("time_s,a,µ\n0,1,2\n".encode("utf-16"))
    with pytest.raises(ValueError, match="CSV table in UTF-8"):
        read(tmp_path / "a.csv", trace_kind="dff")


def test_files_of_two_formats_in_a_folder_ask_for_a_choice(tmp_path):
    save_csv(tmp_path / "a.csv")
    save_npz(tmp_path / "b.npz")
    with pytest.raises(ValueError, match=r"npz \(1\), csv \(1\); choose one with --format"):
        detect(tmp_path)
    assert detect(tmp_path, "csv")[0] == "csv"


def test_nothing_to_read_is_one_plain_line(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        detect(tmp_path)
    with pytest.raises(ValueError, match="found nothing there"):
        detect(tmp_path / "absent")
    with pytest.raises(ValueError, match=f"expected auto, {', '.join(READERS)}, got 'nwb3'"):
        detect(tmp_path, "nwb3")
    np.savez(tmp_path / "a.npz", speed=1)
    with pytest.raises(ValueError, match='it has no array "traces"'):
        detect(tmp_path)


def test_damaged_files_beside_a_recording_do_not_end_the_search(tmp_path):
    save_csv(tmp_path / "a.csv")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "other.csv").write_bytes("µ".encode("latin-1"))
    (tmp_path / "cut.npz").write_bytes(save_npz(tmp_path / "whole.npz").read_bytes()[:100])
    np.save(tmp_path / "one.npy", TRACES)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    for name, left in (("csv", ["empty.csv", "other.csv"]), ("npz", ["cut.npz", "one.npz"])):
        found = detect(tmp_path, name)[1]
        assert len(found.sources) == 1 and [file for file, _ in found.passed_over] == left
        for file in left:
            with pytest.raises(ValueError, match=file):
                detect(tmp_path / file)


def test_an_entry_that_is_no_array_is_one_plain_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("traces.npy", "text")
    with pytest.raises(ValueError, match=r"a\.npz: expected an \.npz archive.*traces is no array"):
        read(tmp_path / "a.npz")


def test_what_is_not_read_may_be_anything(tmp_path):
    (got,) = read(save_npz(tmp_path / "a.npz", settings=np.array({}, dtype=object)))
    assert got.source["notes"] == ["keys that are not read: settings"]


def test_times_in_milliseconds_give_the_rate_of_their_mean_and_irregular_ones_none(tmp_path):
    # The median step of 60 Hz in whole milliseconds, 17 ms, would say 58.8 Hz, and contradict what is stated.
    for stated in (None, 60.0):
        (got,) = read(save_csv(tmp_path / "a.csv", step=1 / 60), Facts(sampling_rate=stated), trace_kind="dff")
        assert got.sampling_rate == pytest.approx(60, rel=2e-3)
    lines = [f"{time:.1f},1,2" for time in np.cumsum([0.1, 0.9] * 20)]
    (tmp_path / "b.csv").write_text("\n".join(["time_s,a,b", *lines]))
    with pytest.raises(ValueError, match="expected time_s to give a sampling rate, got .*irregular"):
        read(tmp_path / "b.csv", trace_kind="dff")


@damages
@given(name=st.sampled_from(("a.npz", "a.csv", "where.csv")), change=damage())
def test_a_damaged_archive_or_table_is_read_or_refused(tmp_path_factory, name, change):
    root = tmp_path_factory.mktemp("damaged")
    arrays = {"centroids": np.ones((3, 2)), "coordinate_unit": "um", "field": 2, "roi_ids": np.array(["a", "b", "c"])}
    save_npz(root / "a.npz", **arrays)
    save_csv(root / "a.csv")
    (root / "where.csv").write_text("roi_id,x_um,y_um\na,1,2\nb,3,4\n")
    (root / name).write_bytes(change((root / name).read_bytes()))
    reads_or_refuses(lambda: read(root / "a.npz"))
    reads_or_refuses(lambda: read(root / "a.csv", Facts(positions="where.csv"), trace_kind="dff"))
