"""Inscopix's exported tables are read as its exporter lays them out, with the curator's choice."""

import numpy as np
import pytest
from damaged_files import damage, damages, reads_or_refuses
from hypothesis import given
from hypothesis import strategies as st
from neurt.dataset_scripts.metadata import Facts
from neurt.dataset_scripts.readers import detect
from neurt.dataset_scripts.readers.inscopix import find_inscopix, read_inscopix
from neurt.dataset_scripts.readers.source import NothingUsable

NAMES = ("C00", "C01", "C02")
STATUSES = ("accepted", "undecided", "rejected")


def write_table(path, names=NAMES, statuses=STATUSES, times=None, edit=None, status_head="Time(s)/Cell Status"):
    """As the exporter writes it: a blank first cell, a space after every comma; cell n at frame i is 100 n + i."""
    times = np.arange(40) / 10 if times is None else times
    lines = [", ".join([" ", *names]), ", ".join([status_head, *statuses])]
    lines += [", ".join([f"{t:.16g}", *(str(100 * n + i) for n in range(len(names)))]) for i, t in enumerate(times)]
    if edit:
        lines[edit[0]] = edit[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def write_properties(path, names=NAMES, metrics=True):
    metric_names = ",CentroidX,CentroidY,NumComponents,Size" if metrics else ""
    lines = [f"Name,Status,ColorR,ColorG,ColorB{metric_names},ActiveSegment0"]
    for i, name in enumerate(names):
        metric = f",{10 + i},{20 + i},1,12.5" if metrics else ""
        lines.append(f"{name},accepted,255,0,0{metric},1")
    path.write_text("\n".join(lines) + "\n")


def read(path, facts=None, trace_kind="dff", **options):
    sources = find_inscopix(path.absolute()).sources
    options |= {"trace_kind": trace_kind}
    return [r for source in sources for r in read_inscopix(source, facts or Facts(), **options)]


def test_accepted_cells_are_read_with_their_positions_by_name(tmp_path):
    write_table(tmp_path / "m1" / "a.csv")
    write_properties(tmp_path / "m1" / "a-props.csv", NAMES[::-1])
    (got,) = read(tmp_path)
    np.testing.assert_array_equal(got.traces, [np.arange(40)])
    np.testing.assert_array_equal(got.centroids, [[12, 22]])
    assert (got.roi_ids, got.accepted.tolist(), got.coordinate_unit) == (("C00",), [True], "px")
    assert (got.source["rois"], got.source["accepted_rois"]) == (3, 1)
    assert got.source["notes"] == ["undecided cells count as not accepted"]
    assert got.sampling_rate == pytest.approx(10) and got.source["sampling_rate_from"] == "Time(s)"
    assert (got.recording_id, got.trace_kind, got.traces.dtype) == ("m1_a", "dff", np.float32)


def test_every_cell_is_read_on_request_and_the_choice_is_kept(tmp_path):
    write_table(tmp_path / "a.csv")
    write_properties(tmp_path / "a-props.csv")
    (got,) = read(tmp_path / "a.csv", Facts(um_per_pixel=2.0), all_rois=True)
    assert (got.roi_ids, got.accepted.tolist()) == (NAMES, [True, False, False])
    np.testing.assert_array_equal(got.traces[2], 200 + np.arange(40))
    np.testing.assert_array_equal(got.centroids, [[20, 40], [22, 42], [24, 44]])
    assert got.coordinate_unit == "um"


@pytest.mark.parametrize("head", ["Time (s)/Cell Status", '"Time(s)/Cell Status"'])
def test_other_spellings_of_the_second_line_are_known(tmp_path, head):
    assert len(read(write_table(tmp_path / "a.csv", status_head=head))) == 1


@pytest.mark.parametrize("properties", [None, False])
def test_without_centroids_there_are_no_positions(tmp_path, properties):
    write_table(tmp_path / "a.csv", statuses=["accepted"] * 3)
    if properties is not None:
        write_properties(tmp_path / "a-props.csv", metrics=False)
    (got,) = read(tmp_path)
    assert got.centroids is None and got.num_neurons == 3
    assert got.source["notes"] == [
        "there is no table of properties with centroids beside it, and so there are no positions"
    ]


@pytest.mark.parametrize("cell", ["nan", "-nan", "", "-nan(ind)"])
def test_missing_values_stay_missing(tmp_path, cell):
    got = read(write_table(tmp_path / "a.csv", edit=(5, f"0.3, {cell}, 103, 203")))[0]
    assert np.flatnonzero(np.isnan(got.traces[0])).tolist() == [3]


def test_dropped_frames_and_new_movies_begin_segments(tmp_path):
    times = 1.7e9 + np.concatenate([0.1 * np.arange(20), 0.1 * np.arange(21, 31), 60 + 0.1 * np.arange(30)])
    got = read(write_table(tmp_path / "a.csv", times=[float(f"{t:.2f}") for t in times]))[0]
    assert got.segment_starts == (0, 20, 30) and "jumps in Time(s) begin a new segment" in got.source["notes"]


def test_a_stated_rate_wins(tmp_path):
    got = read(write_table(tmp_path / "a.csv"), Facts(sampling_rate=20.0))[0]
    assert (got.sampling_rate, got.source["sampling_rate_from"]) == (20, "stated")


def test_the_tables_are_told_from_others_and_claimed(tmp_path):
    write_table(tmp_path / "a.csv")
    write_properties(tmp_path / "a-props.csv")
    name, found = detect(tmp_path)
    assert (name, [s.file for s in found.sources]) == ("inscopix", ["a.csv"])
    (tmp_path / "b.csv").write_text("time_s,a,b\n0,1,2\n")
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe\n\xff\xfe")
    assert [s.file for s in find_inscopix(tmp_path).sources] == ["a.csv"]
    assert {path.name for path in find_inscopix(tmp_path).claimed} == {"a.csv", "a-props.csv"}


def test_a_table_without_accepted_cells_is_left_out(tmp_path):
    with pytest.raises(NothingUsable, match="none of its 3 cells is accepted"):
        read(write_table(tmp_path / "a.csv", statuses=["undecided"] * 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statuses": STATUSES[:2]}, "got 3 names and 2 statuses"),
        (
            {"statuses": ("accepted", "maybe", "rejected")},
            "expected statuses accepted, undecided, rejected, got 'maybe'",
        ),
        ({"names": ("C00", "C00", "C02")}, "expected each cell name once, got 'C00'"),
        ({"names": ("C00", "", "C02")}, "expected each cell name once, got 'none'"),
        ({"edit": (7, "0.5, 1, 2")}, "expected a CSV table in UTF-8"),
        ({"edit": (7, "0.5, 1, x, 3")}, "invalid value 'x'"),
        ({"edit": (7, "0.35, 1, 2, 3")}, "a time in each line, after the one before, got another at line 8"),
        ({"edit": (7, "nan, 1, 2, 3")}, "a time in each line, after the one before, got another at line 8"),
        ({"times": [0.0]}, "expected a sampling rate in Hz, got a single frame"),
        ({"times": []}, "expected lines of values below the header, got none"),
        ({"times": np.cumsum([0.1, 0.9] * 20)}, r"irregular \(\d+% of the steps.*pass --sampling-rate"),
    ],
)
def test_a_table_that_does_not_fit_together_is_one_plain_line(tmp_path, options, message):
    write_table(tmp_path / "a.csv", **options)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path)
    assert "\n" not in str(error.value) and "a.csv" in str(error.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (NAMES[:2], "positions of its own 3 neurons in a-props.csv, got 2, none for 'C02'"),
        ((*NAMES, "C03"), "positions of its own 3 neurons in a-props.csv, got 4, one for 'C03', which has no trace"),
        (("C00", "C01", "C01"), "expected each Name once in a-props.csv, got 'C01' again"),
    ],
)
def test_properties_of_other_cells_are_refused(tmp_path, names, message):
    write_table(tmp_path / "a.csv")
    write_properties(tmp_path / "a-props.csv", names)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_what_the_traces_are_must_be_stated(tmp_path):
    write_table(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="pass --trace-kind"):
        read(tmp_path, trace_kind=None)


@damages
@given(name=st.sampled_from(("a.csv", "a-props.csv")), change=damage())
def test_a_damaged_table_is_read_or_refused(tmp_path_factory, name, change):
    root = tmp_path_factory.mktemp("damaged")
    write_table(root / "a.csv")
    write_properties(root / "a-props.csv")
    (root / name).write_bytes(change((root / name).read_bytes()))
    reads_or_refuses(lambda: read(root, all_rois=True))
