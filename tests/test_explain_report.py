"""The report of an explanation: what it says of a model, in a page that needs no network and shows text as text."""

import dataclasses
import html
import json

import numpy as np
import pytest
from neurt import NeurtForSequenceClassification, NeurtProcessor
from neurt.explain.explanation import ExplainOptions, explain
from neurt.explain.methods import METHODS
from neurt.explain.report import lead, write_report

ATTACK = "<script>alert(1)</script>"
OPTIONS = ExplainOptions(label="group", windows=36, neurons=16)


@pytest.fixture(scope="module")
def found(classifier, build):
    return explain(classifier, build, OPTIONS)


@pytest.fixture(scope="module")
def folder(found, classifier, build, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(found, folder, model=classifier, build=build, command=f"neurt explain report {ATTACK}")
    return folder


def read(folder):
    return (folder / "report.html").read_text(encoding="utf-8"), json.loads((folder / "explanation.json").read_text())


def test_every_method_is_judged_on_the_same_windows_and_stamped_with_what_was_found(found, folder):
    page, results = read(folder)
    assert set(results["methods"]) == set(METHODS)
    for name, verdict in results["methods"].items():
        assert verdict["num_windows"] == 36 and verdict["num_subjects"] == 6
        assert name in page and html.escape(verdict["stamp"], quote=False) in html.unescape(page)
    assert all(maps.shape == found.windows.real.shape for maps in found.maps.values())
    assert found.maps["integrated gradients"] == pytest.approx(found.attribution.values.sum(2))


def test_pictures_lie_beside_the_page_and_inside_it(folder):
    page, _ = read(folder)
    pictures = {path.name for path in folder.glob("*.png")}
    assert len(pictures) == page.count("data:image/png;base64") == 5 + 6
    assert {
        "example_window.png",
        "neurons.png",
        "activity.png",
        "separation.png",
        "recording_attention_rollout.png",
    } <= pictures


def test_animals_that_training_has_seen_are_named_first(found, folder):
    page, results = read(folder)
    assert results["seen_in_training"] == found.seen == ["sim001", "sim002", "sim003", "sim004"]
    assert "The model was trained on sim001, sim002, sim003, sim004" in page


def test_simulated_recordings_are_called_so(folder):
    page, results = read(folder)
    assert results["simulated"] and "<title>Simulated: classifier explained on build</title>" in page


def test_a_map_of_the_whole_recording_covers_every_window(found):
    recording, maps = found.whole.recording, found.whole.maps["pooling attention"]
    assert maps.shape == recording.traces.shape
    known = ~np.isnan(maps[~np.isnan(maps).all(1)])
    assert known[:, :116].all()
    assert np.nanmean(maps) == pytest.approx(1, abs=0.01)
    assert np.nansum(found.whole.contributions) == pytest.approx(0, abs=1e-4)


def test_without_a_label_nothing_counts_as_tested(classifier, build, tmp_path):
    found = explain(classifier, build, dataclasses.replace(OPTIONS, label=None, windows=12, neurons=4))
    assert not any(verdict.faithful for verdict in found.verdicts.values())
    assert found.by_activity is None and found.separation is None and found.scores == {}
    write_report(found, tmp_path, model=classifier, build=build, command="neurt")
    assert "no label was asked for" in read(tmp_path)[0]


def test_no_explanation_of_random_weights_passes(classifier, build, tmp_path):
    model = NeurtForSequenceClassification.from_pretrained(classifier)
    model.init_weights()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2)
    model.save_pretrained(tmp_path / "random")
    NeurtProcessor.from_pretrained(classifier).save_pretrained(tmp_path / "random")
    found = explain(tmp_path / "random", build, OPTIONS)
    assert all(verdict.stamp.startswith("not ") for verdict in (*found.verdicts.values(), found.neurons))
    assert "do not read biology" in " ".join(lead(found)) or "could not be tested" in " ".join(lead(found))


def test_the_command_writes_a_folder_and_says_what_may_be_believed(neurt, classifier, build, tmp_path):
    words = ["explain", "report", classifier, build, "--label", "group", "--windows", 12]
    code, said, _ = neurt(*words, "--output", tmp_path / "out")
    assert code == 0 and "explanations" in said and f"saved to {tmp_path / 'out' / 'report.html'}" in said
    assert "neurt explain report" in read(tmp_path / "out")[1]["command"]
    code, _, error = neurt(*words, "--output", tmp_path / "out")
    assert code == 2 and error.count("\n") == 1 and "does not exist yet" in error
    code, _, error = neurt(*words, "--output", tmp_path / "two", "--recording", "other")
    assert code == 2 and error.count("\n") == 1 and "got 'other'" in error
    assert not (tmp_path / "two").exists()


def test_a_masked_model_is_refused(neurt, pretrained, build, tmp_path):
    code, _, error = neurt("explain", "report", pretrained, build, "--output", tmp_path / "out")
    assert code == 2 and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_page_opens_in_a_browser_without_a_network_and_text_of_strangers_is_text(
    visit, classifier, rebuild, tmp_path
):
    def rename(recording):
        return dataclasses.replace(recording, subject_id=f"{ATTACK}{recording.subject_id}")

    hostile = rebuild(tmp_path / "hostile", rename)
    options = dataclasses.replace(OPTIONS, windows=12, neurons=4)
    write_report(explain(classifier, hostile, options), tmp_path, model=classifier, build=hostile, command=ATTACK)
    page = visit(tmp_path / "report.html")
    assert page.locator("td", has_text=f"{ATTACK}sim001").first.is_visible()
    assert page.locator("pre").inner_text() == ATTACK
    drawn = page.locator("img").evaluate_all("(images) => images.map((image) => image.naturalWidth)")
    assert len(drawn) == 11 and min(drawn) > 400
