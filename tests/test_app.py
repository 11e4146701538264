"""The page: what it says of recordings, that it refuses, forgets and keeps visitors apart, also in Chromium."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import hostile_zips
import numpy as np
import nwb_by_hand
import pytest
import torch
from browser import Visits
from neurt import NeurtConfig, NeurtForSequenceClassification, NeurtProcessor
from neurt.app import describe, look
from neurt.dataset_scripts.recording import Recording
from neurt.evaluation import linear_interpolation
from neurt.explain.page import render_sections
from neurt.loading import load_processor, load_quietly, shipped_model
from neurt.masking import MaskedSignalCollator
from neurt.modeling_neurt import NeurtForMaskedSignalModeling
from neurt.one_recording import (
    RECONSTRUCTED,
    SEED,
    Stated,
    classification_section,
    example,
    in_words_of_the_page,
    read_upload,
    reconstruction_section,
    sections,
    show,
    windows_of,
)

HOSTILE = "<script>alert(1)</script>${alert(2)}{{7*7}}"
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def tiny_classifier(tmp_path_factory):
    """New weights; the names of its classes are not harmless."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    names = {0: "control", 1: HOSTILE}
    config = NeurtConfig(**SIZES, max_position_embeddings=40, id2label=names, pretraining_subjects=["mouse seen"])
    NeurtForSequenceClassification(config).save_pretrained(folder)
    NeurtProcessor(window_length=40).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tiny_masked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked")
    NeurtForMaskedSignalModeling(NeurtConfig(**SIZES, max_position_embeddings=40)).save_pretrained(folder)
    NeurtProcessor(window_length=40).save_pretrained(folder)
    return str(folder)


def recording(name="m1", neurons=6, frames=130, **changes):
    rng = np.random.default_rng(len(name))
    values = {
        "traces": rng.gamma(2.0, size=(neurons, frames)).cumsum(1).astype(np.float32) % 7,
        "sampling_rate": 5.0,
        "recording_id": name,
        "subject_id": name,
        "session_id": "s",
        "roi_ids": tuple(f"{name} {i}" for i in range(neurons)),
        "centroids": 100 * rng.random((neurons, 2)).astype(np.float32),
        "coordinate_unit": "um",
        "trace_kind": "dff",
    }
    return Recording(**(values | changes))


def save(path, name="m1", **changes):
    found = recording(name)
    keys = ("traces", "sampling_rate", "recording_id", "subject_id", "centroids", "coordinate_unit", "trace_kind")
    arrays = {key: getattr(found, key) for key in keys} | {"roi_ids": np.array(found.roi_ids)}
    np.savez(path, **{key: value for key, value in (arrays | changes).items() if value is not None})
    return path


class Text(HTMLParser):
    """Elements of a page and the text between them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attributes)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def of_example():
    """What the shipped weights say of the example."""
    return list(sections([example()], [], str(shipped_model())))


def test_the_example_is_always_the_same_and_said_to_be_simulated(of_example):
    first, second = example(), example()
    assert np.array_equal(first.traces, second.traces) and first.simulated
    assert [section.title for section in of_example] == [
        "Quality check",
        "Reconstruction of hidden gaps",
        "Class and explanation",
    ]
    assert of_example[0].warnings == ["This recording is simulated: no animal was recorded."]
    assert "Simulated data: 128 windows" in of_example[1].text[0]
    assert of_example[2].text[0].startswith("Not asked: this model has no classification head")


def test_errors_are_those_of_the_model_and_of_straight_lines_at_the_same_frames(of_example):
    found = of_example[1]
    dataset = windows_of(example(), load_processor(shipped_model()))
    batch = MaskedSignalCollator(SEED)([dataset[row] for row in dataset.sample(RECONSTRUCTED, SEED)])
    truth, hidden = batch["input_values"].numpy()[..., 0], batch["bool_masked_pos"].numpy()
    hidden = hidden if hidden.ndim == 2 else hidden[..., 0]
    model = load_quietly(NeurtForMaskedSignalModeling, shipped_model()).eval()
    inputs = {name: batch[name] for name in ("input_values", "attention_mask", "bool_masked_pos", "sampling_rate")}
    with torch.inference_mode():
        filled = model(**inputs).reconstruction.numpy()[..., 0]
    real = batch["attention_mask"].numpy().astype(bool)
    lines = linear_interpolation(np.where(hidden | ~real, np.nan, truth)[..., None])[..., 0]
    scored = hidden & real
    expected = [np.sqrt(np.mean((guess - truth)[scored] ** 2)) for guess in (filled, lines)]
    rows = {row[0]: row for row in found.tables[0].rows}
    assert [float(rows[name][1]) for name in ("model", "linear interpolation")] == pytest.approx(expected, rel=5e-3)
    assert int(rows["model"][4]) == scored.sum()
    assert ("smaller than" in found.text[0]) == (expected[0] < expected[1]) and "not smaller" not in found.text[0]


@pytest.fixture
def tiny_shipped(monkeypatch, tiny_masked):
    """What fills gaps where the model is a classifier."""
    monkeypatch.setattr("neurt.one_recording.shipped_model", lambda: tiny_masked)


def test_a_classifier_is_asked_and_its_explanation_is_stamped_not_tested(tiny_classifier, tiny_shipped):
    seen = recording("mouse seen", recording_id=HOSTILE, roi_ids=tuple(f"{i}{HOSTILE}" for i in range(6)))
    found = list(sections([seen], [], tiny_classifier))
    assert [section.title for section in found[2:]] == [
        "Class of the recording",
        "Explanation, and whether it may be believed",
    ]
    scores = {row[0]: float(row[1]) for row in found[2].tables[0].rows}
    assert sum(scores.values()) == pytest.approx(1, abs=2e-3) and set(scores) == {"control", HOSTILE}
    (windows,) = windows_of(seen, load_processor(tiny_classifier)).by_recording
    assert sum(int(row[2]) for row in found[2].tables[0].rows) == len(windows.neurons)
    assert all("trained on mouse seen" in section.warnings[0] for section in found[2:])
    assert "Pooling attention: not tested: there are fewer than 3 animals." in found[3].text[1]
    assert "Frame ablation: not tested: there are fewer than 3 animals." in found[3].text[2]
    assert len(found[3].pictures) == 3
    # Text of strangers shows as text.
    page = Text(render_sections(found))
    assert page.text.count(HOSTILE) > 2
    assert page.tags == {*"section h2 p div table caption thead tbody tr th td figure img figcaption strong".split()}


def test_a_section_that_cannot_be_made_says_why_and_the_others_are_made(tiny_classifier):
    short = recording(frames=20)
    found = list(sections([short], [], tiny_classifier))
    assert "no stretch of 32 frames" in found[0].text[0]
    assert [section.text[0].startswith("Not possible: expected") for section in found[1:]] == [True] * 3


def test_without_positions_own_traces_are_used_and_that_is_said(tiny_classifier, tiny_masked):
    bare = recording(centroids=None, coordinate_unit=None)
    found = reconstruction_section("", bare, tiny_masked)
    assert "Of 6 of 6 neurons the model sees the own trace alone: too few others have a position" in found.text[1]
    assert classification_section("", bare, tiny_classifier).tables


def test_of_neurons_without_a_position_own_traces_are_used_and_that_is_said(tiny_classifier, tiny_shipped):
    # On a circle each neuron has as many near ones.
    angles = 2 * np.pi * np.arange(15) / 12
    placed = 100 * np.column_stack((np.cos(angles), np.sin(angles))).astype(np.float32)
    placed[12:] = np.nan
    mixed = recording(neurons=15, centroids=placed)
    mixed.traces[14] = np.nan
    found = list(sections([mixed], [], tiny_classifier))
    assert found[1].text[1].startswith("Of 2 of 14 neurons the model sees the own trace alone")
    assert found[1].text[2] == "1 neuron left out: NaN or infinite frames."
    assert sum(int(row[2]) for row in found[2].tables[0].rows) == 14 and len(found[3].pictures) == 3


def test_without_a_usable_trace_it_is_said_why(tiny_masked):
    found = list(sections([recording(traces=np.full((6, 130), np.nan, np.float32))], [], tiny_masked))
    assert "got none: of 6 dropped 6 for NaN or infinite frames" in found[1].text[0]
    assert "What begins with -- is said on the command line" in found[0].text[-1]


def test_a_recording_unlike_those_of_the_training_is_warned_of(tiny_classifier, tmp_path):
    folder = Path(shutil.copytree(tiny_classifier, tmp_path / "model"))
    NeurtProcessor(window_length=40, sampling_rate=10.0, trace_kind="events").save_pretrained(folder)
    assert classification_section("", recording(), str(folder)).warnings == [
        "The model was trained at 10 Hz, this recording has 5 Hz.",
        "The model was trained on events, these traces are dff.",
    ]


def test_several_recordings_in_a_file_are_named_and_the_first_with_positions_is_drawn(tiny_masked):
    bare = recording("bare", centroids=None, coordinate_unit=None)
    found = next(sections([bare, recording("placed")], ["left a.npy: it is empty"], tiny_masked))
    assert "2 recordings are in the file (bare, placed); what follows is of the one below." in found.text
    assert found.tables[0].rows[0][:2] == ("recording", "placed")
    assert "Note: left a.npy: it is empty." in found.text


def test_errors_speak_of_the_fields_of_the_page_and_of_no_places(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError) as caught:
        next(show(str(save(tmp_path / "a.npz", sampling_rate=None)), str(tmp_path / "in"), "", Stated()))
    assert str(caught.value) == (
        'a.npz: expected a sampling rate in Hz, got none inside; fill in "Frames per second (Hz)"'
    )
    damaged = hostile_zips.write_zip(tmp_path / "damaged.npz", {"traces.npy": b"no array"})
    with pytest.raises(ValueError) as caught:
        next(show(str(damaged), str(tmp_path / "in"), "", Stated()))
    assert str(caught.value).startswith("damaged.npz: expected an .npz archive, got a file that cannot be read")
    assert str(tmp_path) not in str(caught.value)
    assert in_words_of_the_page("--sampling-rate: expected\na number") == '"Frames per second (Hz)": expected a number'
    assert in_words_of_the_page("/a/b/m.npz: dF/F of /x/b", "/a/b") == "m.npz: dF/F of /x/b"
    assert in_words_of_the_page("dF/F of /processing/F") == "dF/F of /processing/F"


def test_a_choice_that_readers_ask_for_can_be_made_on_the_page(tmp_path):
    def with_two_series(file):
        file["/processing/ophys/F"].copy("dF", "second")
        file["/processing/ophys/F/second/rois"].attrs["table"] = file[nwb_by_hand.TABLE].ref

    nwb_by_hand.save(tmp_path / "a.nwb", with_two_series)
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError) as caught:
        next(show(shutil.copy(tmp_path / "a.nwb", tmp_path / "b.nwb"), str(tmp_path / "in"), "", Stated()))
    assert str(caught.value) == (
        "b.nwb: expected one series of the same ROIs, found /processing/ophys/F/dF, /processing/ophys/F/second; "
        'fill in one of them, or a name in it, as "Series of an NWB file", and say what it holds with '
        '"What the traces are": fluorescence, dff, denoised, deconvolved or events'
    )
    stated = Stated(series="second", trace_kind="dff")
    (found,), _ = read_upload(tmp_path / "a.nwb", tmp_path / "in", stated)
    assert found.source["series"] == "/processing/ophys/F/second"


def test_stated_facts_reach_the_recording(tmp_path, tiny_masked):
    (tmp_path / "in").mkdir()
    upload = save(tmp_path / "a.npz", sampling_rate=None, trace_kind=None, coordinate_unit="px")
    stated = Stated(sampling_rate=12.5, um_per_pixel=2.0, trace_kind="events")
    page = Text(next(show(str(upload), str(tmp_path / "in"), tiny_masked, stated))).text
    assert re.search(r"Hz\s*12\.5", page) and re.search(r"traces\s*events", page) and "µm" in page


@pytest.fixture
def in_this_process(monkeypatch):
    """Visits are worked on here; test_bounded_process.py is about what bounds them, the last tests about both."""
    monkeypatch.setattr("neurt.app.run_bounded", lambda work, *arguments, seconds, memory: work(*arguments))


@pytest.mark.parametrize("hostile", [False, True])
def test_nothing_of_an_upload_is_left(tmp_path, monkeypatch, tiny_masked, in_this_process, hostile):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    upload = tmp_path / "a.zip"
    hostile_zips.lying_bomb(upload, 10**7, 5000) if hostile else hostile_zips.suite2p_zip(upload)
    last = list(look(tiny_masked, str(upload)))[-1]
    assert ('role="alert">Stopped here: expected a whole archive' in last) == hostile
    assert last.endswith("Done.</p>") != hostile
    assert not upload.exists() and [p for p in (tmp_path / "temporary").rglob("*") if p.is_file()] == []


def test_a_recording_is_not_named_after_a_temporary_folder(tmp_path, tiny_masked, in_this_process):
    files = hostile_zips.plane()
    last = list(look(tiny_masked, str(hostile_zips.write_zip(tmp_path / "plane0.zip", files))))[-1]
    assert "recording_plane0" in last and "neurt-app" not in last and last.endswith("Done.</p>")


def test_an_upload_that_is_gone_is_one_sentence_without_its_place(tmp_path, tiny_masked, in_this_process):
    last = list(look(tiny_masked, str(tmp_path / "a.npz")))[-1]
    assert "Stopped here: expected the file that was dropped, got none any more; drop it again." in last


def test_a_folder_is_described_by_its_name_alone(tiny_classifier):
    said = describe(tiny_classifier)
    assert str(Path(tiny_classifier).parent) not in said and "a classifier" in said
    assert describe(str(shipped_model())).startswith("Model: the shipped weights, pretrained on simulated recordings")


@pytest.fixture(scope="module")
def server(tiny_classifier, tmp_path_factory):
    """The address of a page, and the folder of temporary files of who serves it."""
    pytest.importorskip("gradio", reason="needs gradio")
    temporary = tmp_path_factory.mktemp("served")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "neurt.cli", "app", "--model", tiny_classifier, "--port", str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(temporary)}, **pipes)
    address = f"http://127.0.0.1:{port}/"
    try:
        _wait_for(address, process)
        yield address, temporary
    finally:
        process.terminate()
        process.wait(60)
    assert list(temporary.glob("neurt-*")) == []
    assert process.stdout.read().decode().startswith(f"open {address} in a browser; Ctrl+C ends it\n")
    assert b"Traceback" not in process.stderr.read()


def _wait_for(address, process, seconds=180):
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        try:
            return urllib.request.urlopen(address, timeout=10)
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the page does not open")


@pytest.fixture
def visitor(chromium, server):
    """Open the page as someone else each time; nothing may ask for anything elsewhere, or complain."""
    address, temporary = server
    everyone = []

    def open_page():
        everyone.append(Visits(chromium.new_context(viewport={"width": 1280, "height": 850})))
        page = everyone[-1].open(address, f"(data:|blob:)?{re.escape(address)}.*|data:.*")
        page.get_by_role("button", name="Show the simulated example").wait_for()
        return page

    yield open_page
    for visits in everyone:
        visits.context.close()
        # Gradio itself warns of a method that it has not implemented.
        assert [complaint for complaint in visits.complaints if not complaint.startswith("warning: ")] == []
    kept = [path for path in temporary.rglob("*") if path.is_file() and path.stat().st_size]
    assert kept == []


def drop(page, path):
    page.locator("input[type=file]").set_input_files(path)


def answer(page):
    page.locator("#result .done, #result .refused").wait_for(timeout=100_000)
    return page.locator("#result")


def test_two_visitors_at_once_get_their_own_results_and_hostile_zips_are_refused(visitor, tmp_path):
    """One test, since a browser, a server and each visit cost seconds."""
    first, second, start = visitor(), visitor(), time.monotonic()
    first.get_by_role("button", name="Show the simulated example").click()
    drop(second, save(tmp_path / "mouse.npz", recording_id=f"mouse {HOSTILE}"))
    example = first.locator("button", has_text="Show the simulated example")
    example.and_(first.locator(":disabled")).wait_for()
    result = answer(first)
    seconds = time.monotonic() - start
    print(f"example to result: {seconds:.1f} s")
    assert seconds < 30 and result.locator("h2").count() == 4
    assert result.locator("img").count() == 5
    assert all(image.get_attribute("alt") for image in result.locator("img").all())
    shown, other = result.inner_text(), answer(second).inner_text()
    example.and_(first.locator(":enabled")).wait_for()
    first.set_viewport_size({"width": 390, "height": 850})
    assert first.evaluate("document.documentElement.scrollWidth") == 390
    assert "This recording is simulated" in shown and "not tested" in shown and "mouse" not in shown
    assert f"mouse {HOSTILE}" in other and "simulated" not in other.partition("hidden gaps")[0]
    assert other.endswith("Done.")
    refuse_hostile_zips(second, tmp_path)


def refuse_hostile_zips(page, folder):
    upload, witness = folder / "recording.zip", folder / "executed"
    refusals = {
        "expected paths within the archive, got one that leads out of it, '../../F.npy'.": (
            lambda: hostile_zips.with_member(upload, "../../F.npy")
        ),
        "expected at most 400.0 MB when unpacked, got 500.0 MB.": (
            lambda: hostile_zips.overlapping_bomb(upload, 10**7, entries=50)
        ),
        "it is refused because loading it could run anything": (
            lambda: hostile_zips.pickle_that_runs(upload, f"touch {witness}")
        ),
    }
    for sentence, make in refusals.items():
        drop(page, make())
        alert = page.get_by_role("alert").filter(has_text=sentence)
        alert.wait_for(timeout=100_000)
        said = alert.inner_text()
        assert said.startswith("Stopped here: ") and "\n" not in said and "/tmp" not in said
        page.get_by_text("Drop File Here").wait_for()
    assert not witness.exists() and "Traceback" not in page.content()
