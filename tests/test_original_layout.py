"""The layout of the original NEuRT is read by unit ids, and its names lead nowhere else."""

import json

import numpy as np
import pytest
from damaged_files import damage, damages, reads_or_refuses
from hypothesis import given
from hypothesis import strategies as st
from neurt.dataset_scripts.metadata import Facts, match_metadata
from neurt.dataset_scripts.readers import detect
from neurt.dataset_scripts.readers.original_neurt import find_original_neurt, read_original_neurt

RATE = Facts(sampling_rate=6.3)


def write_activity(path, units=(11, 7, 30), index="", frames=40):
    """Unit u at frame i is 100 u + i."""
    lines = [",".join([index, *map(str, units)] if index is not None else map(str, units))]
    for i in range(frames):
        cells = [str(100 * unit + i) for unit in units]
        lines.append(",".join([str(i), *cells] if index is not None else cells))
    path.write_text("\n".join(lines) + "\n")


def write_centroids(path, units=(30, 11, 7), names=("x_um", "y_um")):
    """Unit u lies at (u, 2 u)."""
    lines = [f",unit_id,{names[0]},mask,{names[1]}", *(f"{i},{u},{u},soma,{2 * u}" for i, u in enumerate(units))]
    path.write_text("\n".join(lines) + "\n")


def entry(session=4, scan=7, field=1, activity="activity.csv", centroids="centroids.csv"):
    return {
        "session_idx": session,
        "scan_idx": scan,
        "field_idx": field,
        "paths": {"c": centroids, "note": "both.tables"},
        "signal": {"file": activity},
    }


def write_layout(folder, entries=None, activity=None, centroids=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").write_text(json.dumps([entry()] if entries is None else entries))
    write_activity(folder / "activity.csv", **activity or {})
    write_centroids(folder / "centroids.csv", **centroids or {})
    return folder


def read(path, facts=RATE, trace_kind="fluorescence"):
    sources = find_original_neurt(path.absolute()).sources
    return [r for source in sources for r in read_original_neurt(source, facts, trace_kind=trace_kind)]


@pytest.mark.parametrize("index", ["", "frame", "Unnamed: 0", None])
def test_activity_and_positions_are_matched_by_unit(tmp_path, index):
    (got,) = read(write_layout(tmp_path, activity={"index": index}))
    np.testing.assert_array_equal(got.traces, 100 * np.array([[11], [7], [30]]) + np.arange(40))
    np.testing.assert_array_equal(got.centroids, [[11, 22], [7, 14], [30, 60]])
    assert (got.roi_ids, got.coordinate_unit, got.sampling_rate) == (("11", "7", "30"), "um", 6.3)
    assert (got.recording_id, got.session_id, got.field) == ("session_4_scan_7_field_1", "session_4_scan_7", 1)
    assert (got.trace_kind, got.source["sampling_rate_from"]) == ("fluorescence", "stated")


@pytest.mark.parametrize(
    ("names", "um_per_pixel", "unit", "scale"),
    [
        (("um_x", "um_y"), 2.0, "um", 1),
        (("x_px", "y_px"), None, "px", 1),
        (("px_x", "px_y"), 2.0, "um", 2),
        (("x", "y"), 2.0, "um", 2),
        (("centroid_x", "centroid_y"), 2.0, "um", 2),
    ],
)
def test_the_names_of_the_columns_say_the_unit_of_positions(tmp_path, names, um_per_pixel, unit, scale):
    folder = write_layout(tmp_path, centroids={"names": names})
    (got,) = read(folder, Facts(sampling_rate=6.3, um_per_pixel=um_per_pixel))
    np.testing.assert_array_equal(got.centroids, scale * np.array([[11, 22], [7, 14], [30, 60]]))
    assert got.coordinate_unit == unit


def test_every_field_is_a_recording_that_a_table_of_files_can_name(tmp_path):
    write_activity(tmp_path / "more.csv", units=(1, 2))
    write_centroids(tmp_path / "where.csv", units=(1, 2))
    flat = {"a": "more.csv", "b": "where.csv"}
    write_layout(tmp_path, [entry(), entry(field=2), flat])
    sources = find_original_neurt(tmp_path).sources
    assert [(s.file, s.recording, s.session, s.field) for s in sources] == [
        ("meta.json#0", "session_4_scan_7_field_1", "session_4_scan_7", 1),
        ("meta.json#1", "session_4_scan_7_field_2", "session_4_scan_7", 2),
        ("meta.json#2", "meta_2", "meta_2", None),
    ]
    assert [r.num_neurons for r in read(tmp_path)] == [3, 3, 2]
    table = {f"meta.json#{i}": Facts(subject=f"m{i}") for i in range(3)}
    assert match_metadata(table, [source.file for source in sources]) == table


def test_folders_above_are_part_of_the_name(tmp_path):
    write_layout(tmp_path / "mouse" / "a")
    assert [r.recording_id for r in read(tmp_path)] == ["mouse_a_session_4_scan_7_field_1"]
    assert [r.recording_id for r in read(tmp_path / "mouse" / "a" / "meta.json")] == ["session_4_scan_7_field_1"]


def test_the_layout_is_told_from_other_files_and_its_tables_are_claimed(tmp_path):
    write_layout(tmp_path)
    name, found = detect(tmp_path)
    assert (name, len(found.sources)) == ("original-neurt", 1)
    assert {path.name for path in found.claimed} == {"activity.csv", "centroids.csv"}
    for i, text in enumerate(('{"a": "b.csv"}', '["a.csv", "b.csv"]', "[1, 2]", "", "[" * 10_000, '[{"a": "b.csv"}]')):
        (tmp_path / f"other{i}.json").write_text(text)
    found = find_original_neurt(tmp_path)
    assert [source.file for source in found.sources] == ["meta.json#0"]
    (tmp_path / "broken.json").write_text('[{"a": "a.csv", ')
    assert [file for file, _ in find_original_neurt(tmp_path).passed_over] == ["broken.json"]


@pytest.mark.parametrize("name", ["../secret.csv", "a/../../secret.csv", "/etc/secret.csv", "link.csv", "a\0.csv"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    write_centroids(tmp_path / "secret.csv")
    folder = write_layout(tmp_path / "in", [entry(centroids=name)])
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(
        ValueError, match="in: expected names of tables in this folder, got .*leads out of it"
    ) as error:
        read(folder)
    assert "\n" not in str(error.value)
    assert {path.name for path in find_original_neurt(folder).claimed} == {"activity.csv"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entries": [entry(activity="other\n.csv")]}, r"meta.json#0: expected the names.*got no file 'other\\n.csv'"),
        (
            {"entries": [entry(), {"a": "activity.csv"}]},
            "meta.json#1: expected the names of two CSV tables.*got 1 names",
        ),
        ({"entries": [entry(), 7]}, "meta.json#1: expected the names of two CSV tables.*got 0 names"),
        ({"centroids": {"units": (30, 11)}}, "of its own 3 neurons in centroids.csv, got 2, none for '7'"),
        (
            {"centroids": {"units": (30, 11, 7, 8)}},
            "its own 3 neurons in centroids.csv, got 4, one for '8', which has no",
        ),
        ({"centroids": {"units": (30, 11, 11)}}, "each unit_id once in centroids.csv, got '11' again"),
        ({"activity": {"units": (7, 7, 30)}}, "activity.csv: expected each column once, got '7' more than once"),
        ({"activity": {"units": ()}}, "expected a column for each unit in activity.csv, got none"),
        ({"activity": {"frames": 0}}, "expected lines of values below the header, got none"),
        ({"centroids": {"names": ("x", "y")}}, r"got columns x and y; pass --um-per-pixel \(1 if they are in µm\)"),
        ({"centroids": {"names": ("x_mm", "y_mm")}}, "expected columns x_um, y_um or x_px, y_px"),
        (
            {"entries": [entry(activity="centroids.csv", centroids="centroids2.csv")]},
            "expected a column unit_id in one of",
        ),
    ],
)
def test_tables_that_do_not_fit_together_are_one_plain_line(tmp_path, options, message):
    write_layout(tmp_path, **options)
    write_centroids(tmp_path / "centroids2.csv")
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


def test_what_the_layout_does_not_say_must_be_stated(tmp_path):
    write_layout(tmp_path)
    with pytest.raises(ValueError, match="pass --trace-kind"):
        read(tmp_path, trace_kind=None)
    with pytest.raises(ValueError, match="expected a sampling rate in Hz, got none.*pass --sampling-rate"):
        read(tmp_path, Facts())


@damages
@given(name=st.sampled_from(("meta.json", "activity.csv", "centroids.csv")), change=damage())
def test_a_damaged_layout_is_read_or_refused(tmp_path_factory, name, change):
    root = write_layout(tmp_path_factory.mktemp("damaged"))
    (root / name).write_bytes(change((root / name).read_bytes()))
    reads_or_refuses(lambda: read(root))
