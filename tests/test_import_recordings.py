"""`neurt import` brings recordings into a build, says what it did, and refuses what it cannot use in one line."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest
from neurt.dataset_scripts.import_recordings import import_recordings
from neurt.dataset_scripts.metadata import Facts, match_metadata, read_metadata
from neurt.dataset_scripts.parquet_build import read_build, read_manifest
from neurt.dataset_scripts.preparation import Preparation
from neurt.dataset_scripts.readers import READERS

REAL = Path(os.environ.get("NEURT_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


def save(path, neurons=6, frames=40, positions=6, edit=None, **changes):
    traces = np.random.default_rng(0).random((neurons, frames)).astype(np.float32)
    if edit:
        edit(traces)
    centroids = np.arange(2.0 * neurons).reshape(neurons, 2)
    centroids[positions:] = np.nan
    arrays = {"traces": traces, "centroids": centroids, "coordinate_unit": "px"}
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **(arrays | {"sampling_rate": 5.0, "trace_kind": "dff"} | changes))


def lose(neurons, until, since=0):
    """Return the edit that takes values away."""
    return lambda traces: traces.__setitem__((neurons, slice(since, until)), np.nan)


FILL, DROP = Preparation(nan="interpolate", max_gap=0.6), Preparation(nan="drop")


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
    summary = import_recordings(tmp_path / "in", tmp_path / "build", metadata=rows, sampling_rate=3.0)
    assert "labels: cage (12), genotype (5xFAD, wild type)\nsplit: test 1 recording, train 1 recording" in str(summary)
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
        "labels: none",
        "split: train 3 recordings",
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


def test_control_characters_of_strangers_do_not_reach_the_summary(tmp_path):
    save(tmp_path / "in" / "a.npz", **{"b\x1b[2J": np.zeros(3)})
    assert "keys that are not read: b?[2J" in str(import_recordings(tmp_path / "in", tmp_path / "build"))


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
    assert import_recordings(tmp_path / "in", tmp_path / "build", metadata=rows).build.dropped == ()


def test_positions_of_a_table_come_by_flag_or_metadata(tmp_path):
    (tmp_path / "in").mkdir()
    traces = np.random.default_rng(0).random((40, 2))
    np.savetxt(tmp_path / "in" / "m1.csv", traces, delimiter=",", header="a,b", comments="")
    table(tmp_path / "in" / "where.csv", "roi_id,x_um,y_um\na,1,2\nb,3,4\n")
    rows = table(tmp_path / "recordings.csv", "file,positions,sampling_rate\nm1.csv,where.csv,5\n")
    by_row = import_recordings(tmp_path / "in", tmp_path / "one", metadata=rows, trace_kind="dff")
    flags = {"positions": "where.csv", "sampling_rate": 5.0, "trace_kind": "dff"}
    by_flag = import_recordings(tmp_path / "in", tmp_path / "two", **flags)
    assert by_row.build.dropped == by_flag.build.dropped == ()
    for build in ("one", "two"):
        np.testing.assert_array_equal(next(read_build(tmp_path / build)).centroids, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        ({"frames": 31}, {}, r"recording 'a' \(a.npz\): expected at least 32 frames, got 31"),
        ({"edit": lose(2, 3)}, {}, r"'a' \(a.npz\).*1 of 6 neurons and 3 of 40 frames.*--nan interpolate.*--nan drop"),
        ({"edit": lose(2, 3)}, {"preparation": FILL}, "0 longer gaps and 1 at the start or end of a segment"),
        ({"edit": lose(slice(None), 3)}, {"preparation": DROP}, "a: 6 of 6 neurons hold NaN.*frames 0 to 2, counted"),
        ({}, {"preparation": Preparation(resample_to=3.0)}, "--resample-to to leave at least 32 frames of its 40"),
        ({}, {"preparation": Preparation(dff_window=9.0)}, "expected fluorescence to make dF/F of, got dff"),
        ({}, {"series": "Neuropil"}, "--series: expected only with.* got npz files"),
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
        ("file,subject\n,m1\n", "line 2: expected a file, got an empty cell"),
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


def test_two_files_with_one_id_are_both_named(tmp_path):
    save(tmp_path / "in" / "a.npz", recording_id="R1")
    save(tmp_path / "in" / "b.npz", recording_id="r1")
    with pytest.raises(ValueError, match="'r1'.* got it from a.npz and from b.npz; .* recording of --metadata"):
        import_recordings(tmp_path / "in", tmp_path / "build")
    assert not (tmp_path / "build").exists()


def test_traces_are_prepared_as_stated_and_the_summary_says_what_was_done(tmp_path):
    save(tmp_path / "in" / "a.npz", frames=120, edit=lose([1, 4], 12, since=10), sampling_rate=10.0)
    save(tmp_path / "in" / "b.npz", frames=160, edit=lose(0, 23, since=20), sampling_rate=20.0)
    save(tmp_path / "in" / "c.npz", frames=40)
    fill = Preparation(nan="interpolate", max_gap=0.2, resample_to=5.0)
    summary = import_recordings(tmp_path / "in", tmp_path / "build", preparation=fill)
    assert "sampling rate: 5 Hz\n" in str(summary)
    assert summary.notes[:2] == (
        "3 gaps of NaN or infinite values in 3 neurons of 2 recordings filled by straight lines, the longest 0.2 s",
        "2 recordings resampled from 10 to 20 Hz to 5 Hz",
    )
    manifest = read_manifest(tmp_path / "build")
    parameters = manifest["steps"][0]["parameters"]
    assert {"nan": "interpolate", "max_gap": 0.2, "resample_to": 5.0}.items() <= parameters.items()
    done = [entry["source"].get("preparation", {}) for entry in manifest["files"]]
    assert [each.get("resampled_from") for each in done] == [10, 20, None]
    assert [r.num_frames for r in read_build(tmp_path / "build")] == [60, 40, 40]


def test_neurons_with_nan_are_left_out_on_request_and_recordings_without_others_too(tmp_path):
    save(tmp_path / "in" / "a.npz", edit=lose([1, 4], 3))
    save(tmp_path / "in" / "b.npz", edit=lose(slice(None), 3))
    summary = import_recordings(tmp_path / "in", tmp_path / "build", preparation=DROP)
    assert [entry["why"] for entry in summary.build.dropped] == [
        "2 of 6 neurons hold NaN or infinite values: roi 1, 4",
        "6 of 6 neurons hold NaN or infinite values (in every neuron: frames 0 to 2, counted from 0)",
    ]
    assert [(r.recording_id, r.roi_ids) for r in read_build(tmp_path / "build")] == [("a", ("0", "2", "3", "5"))]


def test_a_trace_that_is_constant_where_it_is_known_is_left_out_before_anything_else(tmp_path):
    def edit(traces):
        traces[1] = 0
        traces[4, :39] = np.nan

    save(tmp_path / "in" / "a.npz", edit=edit)
    summary = import_recordings(tmp_path / "in", tmp_path / "build")
    assert summary.build.dropped[0]["why"] == "2 of 6 neurons have a constant trace: roi 1, 4"


def test_dff_is_made_of_fluorescence(tmp_path):
    save(tmp_path / "in" / "a.npz", traces=9 + np.random.default_rng(0).random((6, 80)), trace_kind="fluorescence")
    summary = import_recordings(tmp_path / "in", tmp_path / "build", preparation=Preparation(dff_window=8.0))
    assert "traces: dff\n" in str(summary)
    assert "note: dF/F made of 1 recording: (F - F0) / F0, F0 the running percentile 10 over 8 s\n" in str(summary)


def test_neurons_without_a_baseline_are_left_out_and_named(tmp_path):
    traces = 9 + np.random.default_rng(0).random((6, 80))
    traces[[1, 4], 20:60] *= -1
    save(tmp_path / "in" / "a.npz", traces=traces, trace_kind="fluorescence")
    save(tmp_path / "in" / "b.npz", traces=-traces[[0, 2, 3]], trace_kind="fluorescence", neurons=3)
    summary = import_recordings(tmp_path / "in", tmp_path / "build", preparation=Preparation(dff_window=4.0))
    why = "neurons have an F0 at or below 0 or a tenth of their median"
    assert f"left out: a: 2 of 6 {why}: roi 1, 4\nleft out: b: 3 of 3 {why}\n" in str(summary)
    dropped = read_manifest(tmp_path / "build")["steps"][0]["dropped"]
    assert [entry.get("roi_ids") for entry in dropped] == [["1", "4"], None]


def test_recordings_of_the_same_data_are_named(tmp_path):
    for name, seed in (("a", 0), ("b", 1), ("c", 0)):
        save(tmp_path / name / f"{name}.npz", traces=np.random.default_rng(seed).random((6, 40)))
    a, b, c = (str(import_recordings(tmp_path / name, tmp_path / "build")) for name in "abc")
    assert "same data" not in a + b and "note: the same data stand in 2 recordings: a, c;" in c


def test_where_nothing_is_prepared_the_manifest_says_nothing_of_it(tmp_path):
    save(tmp_path / "in" / "a.npz")
    import_recordings(tmp_path / "in", tmp_path / "build")
    manifest = read_manifest(tmp_path / "build")
    assert list(manifest["steps"][0]["parameters"]) == ["format", "sampling_rate", "um_per_pixel"]
    assert "preparation" not in manifest["files"][0]["source"]


def test_labels_by_subject_are_classes_of_the_build(tmp_path):
    from datasets import load_dataset

    for name, subject in {"a": "m1", "b": "m1", "c": "m2"}.items():
        save(tmp_path / "in" / f"{name}.npz", subject_id=subject)
    # The table may lie among the recordings.
    labels = table(tmp_path / "in" / "mice.csv", "subject,genotype\nm1,wild type\nm2,5xFAD\n")
    import_recordings(tmp_path / "in", tmp_path / "build", labels=labels)
    got = [recording.labels["genotype"] for recording in read_build(tmp_path / "build")]
    assert got == ["wild type", "wild type", "5xFAD"]
    assert read_manifest(tmp_path / "build")["steps"][0]["parameters"]["labels_of_each"] == "subject"
    rows = load_dataset(str(tmp_path / "build"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.features["genotype"].names == ["5xFAD", "wild type"]
    assert rows["genotype"][0] == 1 and rows["genotype"][-1] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recording,sex\na,f\n", "a row for every recording, got none for b, c; add what is missing"),
        ("recording,sex\na,f\nb,f\nc,f\nd,f\n", "each recording that is there, got d; there are a, b, c"),
        ("recording,genotype\na,x\nb,x\nc,x\n", "'a'.* of label genotype, got 'wild type' from --metadata and 'x'"),
        ("recording,trace\na,x\nb,x\nc,x\n", "label names .*got 'trace'"),
    ],
)
def test_labels_that_do_not_fit_are_one_plain_line_and_leave_nothing(tmp_path, text, message):
    for name in "abc":
        save(tmp_path / "in" / f"{name}.npz")
    rows = table(tmp_path / "r.csv", "file,genotype\n" + "".join(f"{name}.npz,wild type\n" for name in "abc"))
    labels = table(tmp_path / "l.csv", text)
    with pytest.raises(ValueError, match=message):
        import_recordings(tmp_path / "in", tmp_path / "build", metadata=rows, labels=labels)
    assert not (tmp_path / "build").exists()


def test_a_row_of_labels_for_a_file_without_usable_neurons_is_no_mistake(tmp_path):
    for name, accepted in (("a", 1), ("b", 0)):
        folder = tmp_path / "in" / name / "plane0"
        folder.mkdir(parents=True)
        traces = 9 + np.random.default_rng(0).random((6, 40))
        for file, array in {"F": traces, "Fneu": traces / 9, "iscell": np.full((6, 2), accepted)}.items():
            np.save(folder / f"{file}.npy", array)
    labels = table(tmp_path / "mice.csv", "subject,sex\na,f\nb,m\n")
    summary = import_recordings(tmp_path / "in", tmp_path / "build", labels=labels, sampling_rate=5.0)
    assert summary.build.dropped[0]["why"] == "none of its 6 ROIs is accepted in iscell"
    assert "note: 6 of 6 ROIs are accepted by their curator\n" in str(summary)
    assert next(read_build(tmp_path / "build")).labels == {"sex": "f"}


@pytest.mark.parametrize(("all_rois", "what"), [(False, "left out"), (True, "kept as rejected")])
def test_the_summary_counts_the_rois_that_a_curator_rejected(tmp_path, all_rois, what):
    (tmp_path / "plane0").mkdir()
    traces = 9 + np.random.default_rng(0).random((6, 40))
    for file, array in {"F": traces, "Fneu": traces / 9, "iscell": np.arange(6) % 3}.items():
        np.save(tmp_path / "plane0" / f"{file}.npy", array)
    summary = import_recordings(tmp_path / "plane0", tmp_path / "build", sampling_rate=5.0, all_rois=all_rois)
    assert f"note: 4 of 6 ROIs are accepted by their curator; the others are {what}\n" in str(summary)
    assert summary.build.num_neurons == (6 if all_rois else 4)


def test_the_command_prints_a_summary_and_ends_with_2_on_bad_input(tmp_path, neurt):
    save(tmp_path / "in" / "a.npz")
    given = (tmp_path / "in", "--output", tmp_path / "build", "--um-per-pixel", "2", "--subject", "m1")
    code, out, _ = neurt("import", *given)
    assert code == 0
    assert out.startswith("imported 1 recording (npz) of 1 subject\nneurons: 6, 6 with positions in µm\n")
    expected = "neurt: --sampling-rate: expected a number above 0, got -1\n"
    assert neurt("import", *given, "--sampling-rate", "-1") == (2, "", expected)


def test_every_flag_of_preparation_and_labels_arrives(tmp_path, neurt):
    traces = 9 + np.random.default_rng(0).random((6, 120))
    save(tmp_path / "in" / "a.npz", traces=traces, trace_kind="fluorescence", sampling_rate=10.0)
    labels = table(tmp_path / "mice.csv", "recording,sex\na,f\n")
    flags = {"nan": "interpolate", "max-gap": 0.3, "dff-window": 4, "dff-percentile": 20, "resample-to": 5}
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    given = (tmp_path / "in", "--output", tmp_path / "build", "--format", "npz", "--labels", labels)
    assert neurt("import", *given, *words)[0] == 0
    assert read_manifest(tmp_path / "build")["steps"][0]["parameters"] == {
        "format": "npz",
        "sampling_rate": None,
        "um_per_pixel": None,
        **{name.replace("-", "_"): value for name, value in flags.items()},
        "labels_of_each": "recording",
    }
    (got,) = read_build(tmp_path / "build")
    assert (got.sampling_rate, got.num_frames, got.trace_kind, got.labels) == (5.0, 60, "dff", {"sex": "f"})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--nan", "zero"], "--nan: expected refuse, interpolate or drop, got 'zero'"),
        (["--max-gap", "1"], "--max-gap: expected together with --nan interpolate, got one without the other"),
        (["--series", "x"], "--series: expected only with files that know it, got npz files"),
        ([], "recording 'a' (a.npz): expected finite traces, got NaN or infinite values in 1 of 6 neurons"),
    ],
)
def test_bad_flags_and_bad_frames_end_the_command_with_2_and_leave_nothing(tmp_path, neurt, flags, message):
    save(tmp_path / "in" / "a.npz", edit=lose(2, 3))
    code, out, error = neurt("import", tmp_path / "in", "--output", tmp_path / "build", *flags)
    assert (code, out) == (2, "") and error.splitlines()[-1].startswith(f"neurt: {message}")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_help_names_every_format(neurt):
    code, out, _ = neurt("import", "--help")
    assert code == 0 and all(name in out for name in READERS)


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
    assert (len(summary.build.files), summary.build.num_neurons) == (62, 1363)
    without_neighbours = [entry["recording_id"] for entry in summary.build.files if not entry["neighbour_channels"]]
    assert without_neighbours == ["S71M1_G"] and summary.build.dropped == ()
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
    assert summary.build.num_neurons == 20
    assert "20 of 219 ROIs are accepted by their curator; the others are left out" in str(summary)


def test_neurons_with_a_floored_baseline_are_named_in_one_line(neurt, tmp_path):
    F = np.full((1, 40), 100.0, dtype=np.float32)
    F[0, 30:] = 200
    arrays = {"F": F, "Fneu": np.full_like(F, 140), "iscell": np.ones((1, 2))}
    for name in ("m1", "m2"):
        (tmp_path / "in" / name / "plane0").mkdir(parents=True)
        for key, array in arrays.items():
            np.save(tmp_path / "in" / name / "plane0" / f"{key}.npy", array + (name == "m2"))
    code, out, _ = neurt("import", tmp_path / "in", "--sampling-rate", 5, "--output", tmp_path / "out")
    assert code == 0 and "is below it, in 2 neurons: m1_plane0 roi 0, m2_plane0 roi 0\n" in out
