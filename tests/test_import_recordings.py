"""`neurt import` brings recordings into a build, says what it did, and refuses what it cannot use in one line."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest
from neurt import cli
from neurt.dataset_scripts.import_recordings import import_recordings
from neurt.dataset_scripts.metadata import Facts, match_metadata, read_metadata
from neurt.dataset_scripts.parquet_build import read_build, read_manifest

REAL = Path(os.environ.get("NEURT_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


def save(path, neurons=6, frames=40, positions=6, edit=None, **changes):
    traces = np.random.default_rng(0).random((neurons, frames)).astype(np.float32)
    if edit:
        edit(traces)
    centroids = np.arange(2.0 * neurons).reshape(neurons, 2)
    centroids[positions:] = np.nan
    arrays = {"traces": traces, "centroids": centroids, "coordinate_unit": "px", "sampling_rate": 5.0}
    path.parent.mkdir(exist_ok=True)
    np.savez(path, trace_kind="dff", **(arrays | changes))


def table(path, text):
    path.write_text(text)
    return path


def test_a_row_of_the_metadata_says_what_its_file_does_not(tmp_path):
    save(tmp_path / "in" / "a.npz")
    save(tmp_path / "in" / "b.npz")
    rows = table(
        tmp_path / "recordings.csv",
        "file,recording,subject,session,field,sampling_rate,um_per_pixel,indicator,brain_area,split,genotype,cage\n"
        "b.npz,second,m2,day2,4,8,2,GCaMP6s,V1,test,5xFAD,12\n"
        "a.npz,,m1,,,,,,,,wild type,\n",
    )
    import_recordings(tmp_path / "in", tmp_path / "build", metadata=rows, sampling_rate=3.0)
    first, second = read_build(tmp_path / "build")
    assert (second.recording_id, second.subject_id, second.session_id, second.field) == ("second", "m2", "day2", 4)
    assert (second.sampling_rate, second.indicator, second.brain_area) == (8, "GCaMP6s", "V1")
    assert second.labels == {"genotype": "5xFAD", "cage": "12"}
    np.testing.assert_array_equal(second.centroids[1], [4, 6])
    assert (first.recording_id, first.subject_id, first.session_id, first.sampling_rate) == ("a", "m1", "a", 3)
    assert first.labels == {"genotype": "wild type"} and first.coordinate_unit == "px"
    assert [r.recording_id for r in read_build(tmp_path / "build", "test")] == ["second"]


def test_the_summary_says_what_was_done_assumed_and_left_out(tmp_path):
    def two_constant(traces):
        traces[[1, 4]] = 7

    save(tmp_path / "in" / "a.npz", edit=two_constant)
    save(tmp_path / "in" / "b.npz", positions=4)
    save(tmp_path / "in" / "c.npz", positions=0)
    save(tmp_path / "in" / "d.npz", edit=lambda traces: traces.fill(0))
    np.savez(tmp_path / "in" / "e.npz", speed=1)
    summary = import_recordings(tmp_path / "in", tmp_path / "build")
    text = str(summary)
    for line in (
        "imported 3 recordings (npz) of 3 subjects",
        "neurons: 16, 8 with positions in px",
        "frames: 120 in all, 40 a recording",
        "sampling rate: 5 Hz",
        "left out: a: 2 of 6 neurons have a constant trace: roi 1, 4",
        "left out: d: 6 of 6 neurons have a constant trace: roi 0, 1, 2, 3, 4, 5",
        'left out: e.npz: it has no array "traces"',
        "note: no subject is stated for 3 recordings: each session counts as its own subject",
        "note: positions are in pixels in 2 recordings; --um-per-pixel turns them into µm",
        "note: no positions and so no neighbour channels in 1 recording: c",
    ):
        assert line in text
    assert "fewer than 5 accepted neurons with positions in 2 recordings" in text and "made: a, b" in text
    dropped = read_manifest(tmp_path / "build")["steps"][0]["dropped"]
    assert [(d["recording_id"], d.get("roi_ids")) for d in dropped] == [
        ("e.npz", None),
        ("a", ["1", "4"]),
        ("d", ["0", "1", "2", "3", "4", "5"]),
    ]
    a, b, c = read_build(tmp_path / "build")
    assert a.roi_ids == ("0", "2", "3", "5") and a.centroids[1].tolist() == [4, 5] and c.centroids is None


def test_one_animal_for_all_files_can_be_stated(tmp_path):
    save(tmp_path / "in" / "a.npz")
    summary = import_recordings(tmp_path / "in", tmp_path / "build", subject="m1", um_per_pixel=2.0)
    assert next(read_build(tmp_path / "build")).subject_id == "m1"
    assert not [note for note in summary.notes if "subject" in note or "pixels" in note]


def test_an_animal_on_both_sides_of_a_split_is_named(tmp_path):
    for name in "ab":
        save(tmp_path / "in" / f"{name}.npz")
    rows = table(tmp_path / "recordings.csv", "file,subject,split\na.npz,m1,train\nb.npz,m1,test\n")
    summary = import_recordings(tmp_path / "in", tmp_path / "build", metadata=rows)
    assert "subject m1 stands in test and train" in str(summary)


def test_a_metadata_table_in_the_folder_is_no_recording(tmp_path):
    save(tmp_path / "in" / "a.npz")
    rows = table(tmp_path / "in" / "recordings.csv", "file,subject\na.npz,m1\n")
    assert import_recordings(tmp_path / "in", tmp_path / "build", metadata=rows).dropped == ()


def test_positions_of_a_table_come_by_flag_or_metadata(tmp_path):
    (tmp_path / "in").mkdir()
    traces = np.random.default_rng(0).random((40, 2))
    np.savetxt(tmp_path / "in" / "m1.csv", traces, delimiter=",", header="a,b", comments="")
    table(tmp_path / "in" / "where.csv", "roi_id,x_um,y_um\na,1,2\nb,3,4\n")
    rows = table(tmp_path / "recordings.csv", "file,positions,sampling_rate\nm1.csv,where.csv,5\n")
    by_row = import_recordings(tmp_path / "in", tmp_path / "one", metadata=rows, trace_kind="dff")
    flags = {"positions": "where.csv", "sampling_rate": 5.0, "trace_kind": "dff"}
    by_flag = import_recordings(tmp_path / "in", tmp_path / "two", **flags)
    assert by_row.dropped == by_flag.dropped == ()
    for build in ("one", "two"):
        np.testing.assert_array_equal(next(read_build(tmp_path / build)).centroids, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        ({"frames": 31}, {}, "recording 'a': expected at least 32 frames, got 31"),
        ({"edit": lambda t: t.__setitem__((2, slice(3)), np.nan)}, {}, "a.npz.*1 of 6 neurons and 3 of 40 frames"),
        ({"edit": lambda t: t.fill(1)}, {}, "expected at least one recording that can be used.*a: 6 of 6 neurons"),
        ({}, {"sampling_rate": 0.0}, "--sampling-rate: expected a number above 0, got 0"),
        ({}, {"um_per_pixel": float("nan")}, "--um-per-pixel: expected a number above 0, got nan"),
        ({}, {"neuropil_coefficient": 0.5}, "--neuropil-coefficient: expected only with.* got npz files"),
        ({}, {"all_rois": True}, "--all-rois: expected only with.* got npz files"),
        ({}, {"positions": "where.csv"}, "--positions: expected one CSV recording, got 1 of npz"),
        ({}, {"format": "suite2p"}, "expected recordings as suite2p, found none"),
    ],
)
def test_what_cannot_be_used_is_one_plain_line_and_leaves_nothing(tmp_path, changes, flags, message):
    save(tmp_path / "in" / "a.npz", **changes)
    with pytest.raises(ValueError, match=message) as error:
        import_recordings(tmp_path / "in", tmp_path / "build", **flags)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header with a column file"),
        ("file,subject\n", "one line per file below the header, got none"),
        ("name,subject\na.npz,m1\n", "one of them file, got name, subject"),
        ("file;subject\na.npz;m1\n", "comma-separated"),
        ("file,subject,subject\na.npz,m1,m2\n", "each column once, got subject"),
        ("file,geno type\na.npz,x\n", "got 'geno type'"),
        ("file,subject\na.npz,m1\n\nb.npz\n", "line 4: expected 2 cells as in the header, got 1"),
        ("file,subject\na.npz,m1\nb.npz,m2\n./a.npz,m3\n", "line 4: expected each file once, got 'a.npz'.*line 2"),
        ("file,recording\na.npz,r\nb.npz,r\n", "line 3: expected each recording once, got 'r'.*line 2"),
        ("file,sampling_rate\na.npz,5\nb.npz,fast\n", "line 3.*column sampling_rate, got 'fast'"),
        ('file,sampling_rate\na.npz,"5,1"\n', "line 2.*decimal point in column sampling_rate, got '5,1'"),
        ("file,sampling_rate\na.npz,0\n", "number above 0.*got '0'"),
        ("file,um_per_pixel\na.npz,nan\n", "column um_per_pixel, got 'nan'"),
        ("file,field\na.npz,1.5\n", "whole number in column field, got '1.5'"),
        ("file,split\na.npz,holdout\n", "train, validation, test or nothing in column split, got 'holdout'"),
        ("file,subject\n,m1\n", "line 2: expected a file name"),
        ("file,subject\nb.npz,m1\n", "a row for every file, got none for a.npz"),
        ("file,subject\na.npz,m1\nc.npz,m1\n", "got c.npz; files found: a.npz; correct or remove it"),
    ],
)
def test_a_table_that_does_not_fit_is_one_plain_line(tmp_path, text, message):
    save(tmp_path / "in" / "a.npz")
    with pytest.raises(ValueError, match=message):
        import_recordings(tmp_path / "in", tmp_path / "build", metadata=table(tmp_path / "recordings.csv", text))
    assert not (tmp_path / "build").exists()


def test_a_table_from_a_spreadsheet_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "r.csv").write_bytes('\ufefffile,subject\r\n"a.npz",M\u00fcller\r\n'.encode())
    assert read_metadata(tmp_path / "r.csv") == {"a.npz": Facts(subject="M\u00fcller")}
    (tmp_path / "r.csv").write_bytes("file,subject\na.npz,M\u00fcller\n".encode("latin-1"))
    with pytest.raises(ValueError, match="UTF-8"):
        read_metadata(tmp_path / "r.csv")


def test_a_row_names_a_file_by_its_path_or_by_a_name_that_is_unique():
    row, other = Facts(subject="m1"), Facts(subject="m2")
    files = ["day1/a.npz", "day2/b.npz"]
    assert match_metadata({"a.npz": row, "day2/b.npz": other}, files) == {"day1/a.npz": row, "day2/b.npz": other}
    with pytest.raises(ValueError, match="'a.npz', which fits day1/a.npz, day2/a.npz"):
        match_metadata({"a.npz": row}, ["day1/a.npz", "day2/a.npz"])


def test_files_of_the_same_name_in_two_folders_stay_apart(tmp_path):
    for day in ("day1", "day2"):
        (tmp_path / "in" / day).mkdir(parents=True)
        save(tmp_path / "in" / day / "a.npz")
    import_recordings(tmp_path / "in", tmp_path / "build")
    assert [r.recording_id for r in read_build(tmp_path / "build")] == ["day1_a", "day2_a"]


def test_importing_the_same_file_twice_is_refused(tmp_path):
    save(tmp_path / "in" / "a.npz")
    import_recordings(tmp_path / "in", tmp_path / "build")
    with pytest.raises(ValueError, match="recording 'a'.*in the build yet"):
        import_recordings(tmp_path / "in", tmp_path / "build")


def test_the_command_prints_a_summary_and_ends_with_2_on_bad_input(tmp_path, monkeypatch, capsys):
    def neurt(*arguments):
        monkeypatch.setattr("sys.argv", ["neurt", "import", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, *capsys.readouterr()

    save(tmp_path / "in" / "a.npz")
    given = (tmp_path / "in", "--output", tmp_path / "build", "--um-per-pixel", "2", "--subject", "m1")
    code, out, _ = neurt(*given)
    assert code == 0
    assert out.startswith("imported 1 recording (npz) of 1 subject\nneurons: 6, 6 with positions in µm\n")
    expected = "neurt: --sampling-rate: expected a number above 0, got -1\n"
    assert neurt(*given, "--sampling-rate", "-1") == (2, "", expected)


@pytest.mark.skipif(not (REAL / "algamal_two_photon").is_dir(), reason="no real recordings here")
def test_the_real_two_photon_recordings_import_whole(tmp_path):
    from scipy.io import loadmat

    folder = REAL / "algamal_two_photon"
    rates = {path: 1 / loadmat(path, variable_names=["dt"])["dt"].item() for path in sorted(folder.glob("*.mat"))}
    lines = [f"{path.name},{path.stem.split('_')[0]},{rate}" for path, rate in rates.items()]
    rows = table(tmp_path / "recordings.csv", "\n".join(["file,subject,sampling_rate", *lines]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    summary = import_recordings(folder, tmp_path / "build", metadata=rows, um_per_pixel=0.994)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "more than 200 MB for small files"
    assert (summary.build.num_recordings, summary.build.num_neurons) == (62, 1363)
    assert summary.build.without_neighbour_channels == ("S71M1_G",) and summary.dropped == ()
    assert len({entry["subject_id"] for entry in summary.build.files}) == 6
    assert {entry["coordinate_unit"] for entry in summary.build.files} == {"um"}
    assert sum(entry["neurons_with_positions"] for entry in summary.build.files) == 1363
    with pytest.raises(ValueError, match=r"ops\.fs = 5 Hz but dt"):
        import_recordings(folder, tmp_path / "other")


@pytest.mark.skipif(not (REAL / "suite2p_plane0").is_dir(), reason="no real recordings here")
def test_the_real_suite2p_folder_needs_a_rate(tmp_path):
    with pytest.raises(ValueError, match="suite2p_plane0: expected a sampling rate"):
        import_recordings(REAL / "suite2p_plane0", tmp_path / "build")
    summary = import_recordings(REAL / "suite2p_plane0", tmp_path / "build", sampling_rate=30.0)
    assert summary.build.num_neurons == 20 and "20 of 219 ROIs are accepted by their curator; the others are left out" in str(summary)
