"""`neurt inspect` says first what is wrong and what to do, then what was measured, and draws one recording."""

import dataclasses
import functools
import inspect as introspection
import json
import os
import struct
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from neurt.commands import data
from neurt.dataset_scripts.inspect_figure import recording_figure
from neurt.dataset_scripts.inspect_recordings import inspect_recordings
from neurt.dataset_scripts.parquet_build import read_manifest, write_build
from neurt.dataset_scripts.quality import measure
from neurt.dataset_scripts.recording import Recording

REAL = Path(os.environ.get("NEURT_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture
def inspect(neurt):
    """Run `neurt inspect`; returns its exit code, standard output and the last line of standard error."""

    def run(*words):
        code, out, err = neurt("inspect", *words)
        return code, out, err.strip().split("\n")[-1]

    return run


def arrays(neurons=12, frames=200, seed=0, **changes):
    """Noisy dF/F of neurons about 30 px apart on a square, with which nothing is wrong."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.divmod(np.arange(neurons), int(np.ceil(np.sqrt(neurons)))), axis=1)
    good = {
        "traces": np.abs(0.1 * rng.standard_normal((neurons, frames))),
        "centroids": 30 * grid + rng.uniform(-2, 2, size=(neurons, 2)),
        "coordinate_unit": "px",
        "sampling_rate": 5.0,
        "trace_kind": "dff",
    }
    return good | changes


def save(path, **changes):
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **{name: value for name, value in arrays(**changes).items() if value is not None})
    return path


def recording(name="r", **changes):
    values = arrays(**changes)
    ids = {"recording_id": name, "subject_id": "m", "session_id": "s"}
    return Recording(**ids, roi_ids=tuple(map(str, range(len(values["traces"])))), **values)


def problems(path, **options):
    """What is wrong, as (what, value) of each recording."""
    return [(one.what, one.value) for one in inspect_recordings(path, **options).problems]


def test_a_good_recording_has_no_problem_and_one_row(tmp_path, inspect):
    code, out, _ = inspect(save(tmp_path / "a.npz"))
    lines = out.split("\n")
    assert code == 0 and lines[:3] == ["inspected 1 recording (npz)", "no problem found", ""]
    header, row = (line.split() for line in lines[3:5])
    assert header[:7] == ["recording", "neurons", "placed", "frames", "seconds", "Hz", "rate"]
    assert row[:6] == ["a", "12", "12", "200", "40", "5"]


def test_what_the_table_says_was_measured(tmp_path):
    values = arrays(seed=3)
    (quality,) = inspect_recordings(save(tmp_path / "a.npz", seed=3)).qualities
    steps = np.median(np.abs(np.diff(values["traces"], axis=1)), axis=1)
    row = str(inspect_recordings(tmp_path / "a.npz")).split("\n")[4]
    assert f"  {100 * np.median(steps) / np.sqrt(5):.3g}  " in row
    np.testing.assert_allclose(quality.noise, 100 * steps / np.sqrt(5), rtol=1e-5)


def test_files_that_cannot_be_read_are_said_in_one_line_and_the_others_measured(tmp_path, inspect):
    folder = tmp_path / "in"
    save(folder / "a.npz")
    for name, rate in {"b": -1.0, "c": -2.5, "d": -3.0}.items():
        save(folder / f"{name}.npz", sampling_rate=rate)
    save(folder / "e.npz", centroids=np.zeros((3, 2)))
    code, out, _ = inspect(folder)
    first, second, third = out.split("\n")[:3]
    assert code == 0 and first == "inspected 1 recording (npz)"
    assert second.startswith("problem: 3 cannot be read: b.npz: expected a sampling rate in Hz, got -1; pass")
    assert second.endswith("likewise c.npz, d.npz")
    assert third.startswith("problem: e.npz: expected ")
    assert out.rstrip().split("\n")[-1] == "4 of 5 files could not be read, see the problems above"


def test_nothing_that_can_be_read_ends_with_exit_code_2(tmp_path, inspect):
    save(tmp_path / "in" / "a.npz", sampling_rate=None)
    save(tmp_path / "in" / "b.npz", sampling_rate=None)
    figure = tmp_path / "figure.png"
    code, out, err = inspect(tmp_path / "in", "--output", figure)
    assert (code, out, figure.exists()) == (2, "", False)
    assert err.startswith("neurt: 2 cannot be read: a.npz: expected a sampling rate")
    assert err.endswith("; likewise b.npz")


def test_many_recordings_with_one_problem_share_a_line(tmp_path, inspect):
    for n in range(12):
        save(tmp_path / "in" / f"r{n:02}.npz", frames=100 if n else 200, seed=n)
    lines = inspect(tmp_path / "in")[1].split("\n")
    assert lines[1] == (
        "problem: 11 of 12 recordings: no stretch of 128 frames; windows of the default length would be padded: train "
        "with a shorter --window-length: r01 (100 frames), r02 (100 frames), r03 (100 frames), r04 (100 frames), "
        "r05 (100 frames), r06 (100 frames), r07 (100 frames), r08 (100 frames) and 3 more"
    )


def nan_in_two_neurons():
    traces = arrays()["traces"]
    traces[:2, 5] = np.nan
    return {"traces": traces}


def two_halves_of_one_cell():
    values = arrays()
    values["traces"][3] = values["traces"][2] * 1.1
    values["centroids"][3] = values["centroids"][2] + 2
    return values


def one_empty_roi():
    traces = arrays()["traces"]
    traces[0] *= 100
    return {"traces": traces}


def drifting():
    return {"traces": arrays()["traces"] + np.linspace(0, 1, 200)}


def pushed():
    return {"traces": arrays()["traces"] + 5 * (np.arange(200) == 60)}


WRONG = {
    "frames at which most neurons jump together": (pushed(), "2: at 12, 12.2 s"),
    "no stretch of 32 frames": ({"segment_starts": np.arange(0, 200, 20)}, "20 frames"),
    "no stretch of 128 frames": ({"segment_starts": np.array([0, 100])}, "100 frames"),
    "fewer than the 5 neurons with positions": ({"neurons": 4}, "4"),
    "NaN or infinite values": (nan_in_two_neurons(), "1 of 200 frames, 2 of 12 neurons: roi 0, 1"),
    "traces said to be events that look like dff": ({"trace_kind": "events"}, ""),
    "constant traces": ({"traces": np.vstack([arrays(11)["traces"], np.ones(200)])}, "1 of 12 neurons: roi 11"),
    "traces that stand at their maximum": (
        {"traces": np.minimum(arrays()["traces"], 0.1)},
        "12 of 12 neurons: roi 0, 1",
    ),
    "neurons over 10 times as noisy": (one_empty_roi(), "1 of 12 neurons: roi 0"),
    "baselines that wander": (drifting(), "median 2"),
    "neurons with exactly the trace": ({"traces": np.tile(arrays(6)["traces"], (2, 1))}, "6 of 12 neurons: roi 6, 7"),
    "pairs within 10 px": (two_halves_of_one_cell(), "1: roi 2 with 3"),
    "a field wider than 5 mm": ({"centroids": 1e4 * arrays()["centroids"], "coordinate_unit": "um"}, ""),
    "all positions within 20 px": ({"centroids": arrays()["centroids"] / 10}, ""),
    "more neurons within 10 µm": ({"neurons": 120, "centroids": None, "coordinate_unit": "um"}, ""),
    "neurons at exactly the position": (
        {"centroids": np.repeat(arrays(6)["centroids"], 2, axis=0)},
        "6 of 12 neurons: roi 1, 3",
    ),
    "too few near or far neurons": (
        {"centroids": 2.0 ** np.arange(12)[:, None] * [1, 0]},
        "5 of 12 neurons: roi 7, 8, 9, 10, 11",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_each_thing_that_is_wrong_is_found(tmp_path, what):
    changes, value = WRONG[what]
    if what.startswith("more neurons"):
        dense = np.random.default_rng(0).random((120, 2)) * [8, 30]
        changes = changes | {"centroids": dense}
    found = problems(save(tmp_path / "a.npz", **changes))
    assert any(said.startswith(what) and got.startswith(value) for said, got in found), found


def test_a_radius_in_micrometres_needs_positions_in_micrometres(tmp_path):
    path = save(tmp_path / "a.npz")
    assert problems(path, radius=50, radius_unit="um") == [("positions in px, another unit than the radius", "")]
    assert problems(path, radius=50, radius_unit="um", um_per_pixel=1.2) == []


def test_two_recordings_with_the_same_arrays_or_id_are_found(tmp_path):
    save(tmp_path / "in" / "a.npz")
    save(tmp_path / "in" / "b.npz", recording_id="a", seed=1)
    save(tmp_path / "in" / "c.npz")
    assert problems(tmp_path / "in") == [
        ("a recording_id that another recording has", ""),
        ("exactly the arrays of another recording", "as a"),
    ]


def test_kinds_of_traces_in_one_folder_are_found(tmp_path, inspect):
    for n, kind in enumerate(("dff", "fluorescence", "dff")):
        save(tmp_path / "in" / f"{n}.npz", seed=n, trace_kind=kind)
    assert inspect(tmp_path / "in")[1].split("\n")[1] == (
        "problem: 1: another kind of traces than the dff of the others (fluorescence); make one build for each kind"
    )


def test_rates_that_differ_by_over_a_tenth_are_found(tmp_path, inspect):
    for name, rate in {"a": 5.4, "b": 5.0, "c": 10.0}.items():
        save(tmp_path / "in" / f"{name}.npz", seed=ord(name), sampling_rate=rate)
    assert inspect(tmp_path / "in")[1].split("\n")[1:3] == [
        "problem: c: sampled over 10 % faster than the 5 Hz of the slowest (10 Hz); "
        "import all with --resample-to 5, or make one build for each rate",
        "",
    ]


def test_what_is_stated_counts_as_in_an_import(tmp_path, inspect):
    save(tmp_path / "in" / "a.npz", sampling_rate=None)
    rows = tmp_path / "recordings.csv"
    rows.write_text("file,recording,sampling_rate\na.npz,first,8\n")
    (quality,) = inspect_recordings(tmp_path / "in", metadata=rows, sampling_rate=3, um_per_pixel=2).qualities
    assert (quality.recording_id, quality.sampling_rate, quality.coordinate_unit) == ("first", 8, "um")
    assert quality.sampling_rate_from == "stated"
    code, _, err = inspect(tmp_path / "in", "--sampling-rate", 5, "--series", "x")
    assert code == 2 and err == "neurt: --series: expected only with files that know it, got npz files"
    assert inspect(tmp_path / "in", "--sampling-rate", 0)[2].startswith(
        "neurt: --sampling-rate: expected a number above"
    )
    assert inspect(tmp_path / "in", "--radius", 2)[2].startswith("neurt: expected neighbour_radius between 0 and 1")


def test_what_reads_a_file_for_an_import_reads_it_for_a_look():
    imported, inspected = (introspection.signature(command).parameters for command in (data.import_, data.inspect))
    shared = set(imported) & set(inspected) - {"path", "output"}
    assert {"subject", "positions", "neuropil_coefficient", "all_rois"} < shared
    assert all(imported[name] == inspected[name] for name in shared)


def test_positions_of_a_table_stand_in_a_file_beside_it(tmp_path, inspect):
    values = arrays()
    columns = "\n".join(",".join(map(str, frame)) for frame in values["traces"].T)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text(",".join(f"n{n}" for n in range(12)) + "\n" + columns + "\n")
    rows = "\n".join(f"n{n},{x},{y}" for n, (x, y) in enumerate(values["centroids"]))
    (tmp_path / "in" / "places.csv").write_text("roi_id,x_px,y_px\n" + rows + "\n")
    stated = ("--trace-kind", "dff", "--sampling-rate", 5, "--subject", "m")
    code, out, err = inspect(tmp_path / "in", "--positions", "places.csv", *stated)
    assert code == 0 and out.split("\n")[1:3] == ["no problem found", ""], err


def test_the_table_of_metadata_is_no_file_that_was_left(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("x,y\n" + "1,2\n" * 40)
    rows = tmp_path / "in" / "recordings.csv"
    rows.write_text("file,sampling_rate\na.csv,8\n")
    assert inspect_recordings(tmp_path / "in", metadata=rows, trace_kind="dff").notes == ()


def test_notes_of_readers_and_files_that_were_left_follow_the_problems(tmp_path, inspect):
    save(tmp_path / "in" / "a.npz", stimulus=np.zeros(3))
    np.savez(tmp_path / "in" / "b.npz", behaviour=np.zeros(3))
    lines = inspect(tmp_path / "in")[1].split("\n")
    assert lines[2:4] == [
        "note: keys that are not read: stimulus (1 of 1 recording)",
        'note: left b.npz: it has no array "traces"',
    ]


def test_a_build_is_read_recording_by_recording_and_a_damaged_one_is_a_problem(tmp_path, inspect):
    build = tmp_path / "build"
    write_build((recording(name, seed=n) for n, name in enumerate("abc")), build, builder="test", parameters={})
    path = build / read_manifest(build)["files"][1]["path"]
    path.write_bytes(path.read_bytes()[:200])
    code, out, _ = inspect(build, "--json", tmp_path / "measures.json")
    assert code == 0 and out.startswith("inspected 2 recordings (build)\nproblem: b: ")
    assert out.rstrip().endswith("\n1 of 3 recordings could not be read, see the problems above")
    measures = json.loads((tmp_path / "measures.json").read_text())
    assert [one["recording_id"] for one in measures["recordings"]] == ["a", "c"] and list(measures["unreadable"]) == [
        "b"
    ]
    for flag, *value in (("--um-per-pixel", 1), ("--format", "npz"), ("--subject", "m"), ("--all-rois",)):
        code, _, err = inspect(build, flag, *value)
        assert code == 2 and err.startswith(f"neurt: {flag}: expected only with files that are still to be imported")


def test_simulated_recordings_are_called_so(tmp_path, inspect, build):
    code, out, _ = inspect(build, "--output", tmp_path / "figure.png")
    assert code == 0 and out.startswith("inspected 12 recordings (build, 12 of them simulated)\n")
    simulated = recording(modality="simulated")
    assert "simulated" in recording_figure(simulated, measure(simulated)).get_suptitle()


def test_every_measure_is_in_the_json_file_as_plain_json(tmp_path, inspect):
    traces = np.vstack([arrays(11)["traces"], np.ones(200)])
    path = tmp_path / "measures.json"
    assert inspect(save(tmp_path / "a.npz", traces=traces), "--json", path)[0] == 0
    measures = json.loads(path.read_text(), parse_constant=pytest.fail)
    (one,) = measures["recordings"]
    assert one["noise"][11] is None and len(one["noise"]) == len(one["drift"]) == len(one["roi_ids"]) == 12
    assert one["distances"]["radius"] == one["distances"]["quantiles"][1]
    assert measures["problems"][0]["value"] == "1 of 12 neurons: roi 11"


def png_size(path):
    return struct.unpack(">II", path.read_bytes()[16:24])


def test_the_figure_is_of_the_first_recording_with_positions_or_the_one_asked_for(tmp_path, inspect):
    save(tmp_path / "in" / "a.npz", centroids=None)
    save(tmp_path / "in" / "b.npz", seed=1)
    save(tmp_path / "in" / "c.npz", seed=2)
    figure = tmp_path / "figure.png"
    assert f"\ndrawn: b, {figure}\n" in inspect(tmp_path / "in", "--output", figure)[1]
    assert png_size(figure)[0] > 1000 and matplotlib.image.imread(figure).std() > 0.05
    assert f"\ndrawn: c, {figure}\n" in inspect(tmp_path / "in", "--output", figure, "--recording", "c")[1]
    code, _, err = inspect(tmp_path / "in", "--output", figure, "--recording", "d")
    assert code == 2 and err == "neurt: --recording: expected one of a, b, c, got 'd'"
    code, _, err = inspect(tmp_path / "in", "--recording", "c")
    assert code == 2 and err == "neurt: --recording: expected with --output, the picture of 'c', got no --output"


def panels(one, **options):
    return {axes.get_ylabel(): axes for axes in recording_figure(one, measure(one, **options)).axes}


def test_the_map_marks_near_and_far_neurons_of_one_in_the_middle():
    # Around (50, 50): at 10 and 20 near, at 40 and 41 far.
    centroids = np.array([[50, 50], [60, 50], [50, 70], [10, 50], [91, 50]], dtype=float)
    panel = panels(recording(neurons=5, centroids=centroids), radius=30, radius_unit="px")["y (px)"]
    (circle,) = panel.patches
    assert tuple(circle.center) == (50, 50) and circle.radius == 30
    points = {points.get_label(): points.get_offsets().tolist() for points in panel.collections}
    assert points["roi 0"] == [[50, 50]]
    assert points["2 near within 30 px"] == [[60, 50], [50, 70]]
    assert points["2 far"] == [[10, 50], [91, 50]]
    unmeasured = panels(recording(neurons=5, centroids=centroids), radius=30, radius_unit="um")["y (px)"]
    assert [one.get_label() for one in unmeasured.collections] == ["roi 0", "4 others"]


def test_the_raster_puts_together_what_is_active_together():
    wave = np.sin(np.arange(200) / 7)
    traces = np.stack([wave, -wave, wave, -wave, wave, -wave]) + 0.01 * arrays(6)["traces"]
    image = panels(recording(neurons=6, traces=traces))["roi, by first principal component"].images[0].get_array()
    signs = np.sign(image[:, 11])
    assert signs.tolist() in ([1, 1, 1, -1, -1, -1], [-1, -1, -1, 1, 1, 1])


def test_the_raster_names_its_rows():
    panel = panels(recording(neurons=30))["roi, by first principal component"]
    assert sorted(label.get_text() for label in panel.get_yticklabels()) == sorted(map(str, range(30)))
    wave = np.sin(np.arange(200) / 7)
    traces = np.array([[1], [-1]] * 30) * wave + 0.01 * arrays(60)["traces"]
    panel = panels(recording(neurons=60, traces=traces))["roi, by first principal component"]
    named = [int(label.get_text()) % 2 for label in panel.get_yticklabels()]
    assert named in ([0] * 15 + [1] * 15, [1] * 15 + [0] * 15)


def test_a_long_name_keeps_its_end_and_leaves_room_for_a_tall_map():
    ids = tuple(f"session3_plane2_cell{n:03}" for n in range(12))
    one = dataclasses.replace(recording(centroids=arrays()["centroids"] * [1, 4]), roi_ids=ids)
    drawn = panels(one)
    names = [label.get_text() for label in drawn["roi, by first principal component"].get_yticklabels()]
    assert sorted(names)[-1] == "…ne2_cell011"
    panel = drawn["y (px)"]
    panel.figure.canvas.draw()
    assert panel.get_legend().get_window_extent().x0 >= panel.get_window_extent().x1


def noise_panel(*scales):
    """The panel of neurons as noisy as that, and the ticks that are seen; each stands where it says."""
    traces = np.array(scales)[:, None] * arrays(len(scales))["traces"]
    panel = panels(recording(neurons=len(scales), traces=traces))["neurons"]
    panel.figure.canvas.draw()
    low, high = panel.get_xlim()
    ticks = {label.get_text(): label.get_position()[0] for label in panel.get_xticklabels()}
    assert all(float(text) == pytest.approx(x) for text, x in ticks.items())
    return panel, [text for text, x in ticks.items() if low <= x <= high]


def test_a_small_spread_of_noise_has_a_linear_axis_and_a_large_one_says_that_it_is_logarithmic():
    panel, _ = noise_panel(1, 1.1, 1.2, 1.3)
    assert panel.get_xscale() == "linear" and "log" not in panel.get_xlabel()
    panel, ticks = noise_panel(1, 1.1, 1.2, 100)
    assert panel.get_xscale() == "log" and panel.get_xlabel().endswith("(log scale)")
    assert len(ticks) >= 5 and {tick.strip("0.") for tick in ticks} == {"1", "2", "5"}
    _, ticks = noise_panel(1, 1.1, 1.2, 10_000)
    assert {tick.strip("0.") for tick in ticks} == {"1"}


def test_what_is_not_there_is_said_within_its_box():
    still = np.zeros((6, 200))
    still[:, 7] = 1
    figure = recording_figure(one := recording(neurons=6, traces=still, centroids=None), measure(one))
    figure.canvas.draw()
    empty = {axes.texts[0].get_text(): axes for axes in figure.axes if axes.texts}
    assert list(empty)[0] == "no neuron has a position" and len(empty) == 2
    for axes in empty.values():
        text, box = axes.texts[0].get_window_extent(), axes.get_window_extent()
        assert box.x0 < text.x0 and text.x1 < box.x1


def test_anything_can_be_drawn(tmp_path):
    traces = arrays()["traces"]
    traces[0], traces[1], traces[2, :50] = np.nan, 1, np.inf
    odd = [
        recording("$x_1$", traces=traces, centroids=None, coordinate_unit=None, segment_starts=(0, 90)),
        recording(traces=(traces > 0.2).astype(float), trace_kind="events", centroids=np.full((12, 2), 3.0)),
        recording(neurons=610, frames=32),
        recording(neurons=1, frames=1600),
    ]
    for number, one in enumerate(odd):
        recording_figure(one, measure(one, 5, "um")).savefig(tmp_path / f"{number}.png", dpi=30)


def test_control_characters_of_strangers_do_not_reach_the_terminal(tmp_path, inspect):
    save(tmp_path / "a.npz", recording_id="a\x1b[2J\nb")
    code, out, _ = inspect(tmp_path / "a.npz")
    assert code == 0 and "a?[2J?b" in out and "\x1b" not in out


def real(folder):
    return pytest.mark.skipif(not (REAL / folder).exists(), reason=f"{folder} is not here")


@real("algamal_two_photon")
def test_what_is_known_of_real_two_photon_recordings_is_said(tmp_path, inspect):
    rows = [f"{path.name},5" for path in sorted((REAL / "algamal_two_photon").glob("*.mat"))]
    (tmp_path / "recordings.csv").write_text("\n".join(["file,sampling_rate", *rows]))
    inspection = inspect_recordings(REAL / "algamal_two_photon", metadata=tmp_path / "recordings.csv")
    said = {(one.recording, one.what[:34]) for one in inspection.problems}
    assert [name for name, what in said if what.startswith("fewer than the 5")] == ["S71M1_G"]
    assert not any(what.startswith("traces said to be") for _, what in said)
    assert not any(what.startswith("frames at which most") for _, what in said)
    medians = [np.median(quality.noise) for quality in inspection.qualities]
    assert len(medians) == 62 and 1 < min(medians) and max(medians) < 20


@real("suite2p_plane0")
def test_the_neuropil_coefficient_changes_what_is_measured():
    plane = functools.partial(inspect_recordings, REAL / "suite2p_plane0", sampling_rate=30, trace_kind="fluorescence")
    (with_neuropil,), (without,) = (plane(neuropil_coefficient=share).qualities for share in (0.0, 0.7))
    assert not np.allclose(with_neuropil.drift, without.drift)
    (kept,) = plane(all_rois=True).qualities
    assert kept.rejected > 0 and kept.neurons == without.neurons


@real("suite2p_plane0")
def test_the_empty_roi_of_a_real_plane_is_found(inspect):
    code, out, _ = inspect(REAL / "suite2p_plane0", "--sampling-rate", 10)
    assert code == 0 and "neurons over 10 times as noisy as the others (1 of 20 neurons: roi " in out
    assert inspect(REAL / "suite2p_plane0")[0] == 2
