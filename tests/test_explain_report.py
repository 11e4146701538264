"""The report of an explanation: what it says of a model, in a page that needs no network and shows text as text."""

import collections
import dataclasses
import html
import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from neurt import NeurtForSequenceClassification, NeurtProcessor
from neurt.explain import explanation, report
from neurt.explain.aspects import Separation
from neurt.explain.curves import Estimate
from neurt.explain.explanation import ExplainOptions, explain
from neurt.explain.faithfulness import NO_GROUPS
from neurt.explain.methods import METHODS
from neurt.explain.page import Picture
from neurt.explain.report import draw, lead, sections, write_report

ATTACK = "<script>alert(1)</script>"
OPTIONS = ExplainOptions(label="group", windows=36, neurons=16)


@pytest.fixture(scope="module")
def hostile(rebuild, tmp_path_factory):
    """The build, with a script in the names of the animals that training has not seen."""

    def rename(recording):
        seen = recording.subject_id in ("sim001", "sim002", "sim003", "sim004")
        return recording if seen else dataclasses.replace(recording, subject_id=ATTACK + recording.subject_id)

    return rebuild(tmp_path_factory.mktemp("hostile") / "build", rename)


@pytest.fixture(scope="module")
def found(classifier, hostile):
    return explain(classifier, hostile, OPTIONS)


@pytest.fixture(scope="module")
def folder(found, classifier, hostile, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(found, folder, model=classifier, build=hostile, command=f"neurt explain report {ATTACK}")
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made, but no pictures of them, which takes longer; returns them as they are drawn."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    return figures


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
    assert lead(found)[1].startswith("The model was trained on sim001, sim002, sim003, sim004")
    assert lead(found)[1] in page


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


def test_what_stands_on_the_page_stands_in_the_json(found, folder):
    _, results = read(folder)
    assert results["recordings"][found.recordings[0].recording_id] == {
        "subject": "sim001",
        "label": "control",
        "neurons": 8,
        "frames": 116,
        "sampling_rate": 5.0,
    }
    assert len(results["recordings"]) == 12
    told = results["contributions"]
    assert told["recording"] == found.whole.recording.recording_id and told["towards"] == found.whole.towards
    assert list(told["log_odds"]) == list(found.whole.recording.roi_ids)
    np.testing.assert_allclose(
        np.array(list(told["log_odds"].values()), dtype=float), found.whole.contributions, rtol=1e-6
    )


@pytest.mark.parametrize("of_a_class, shown", [(3, True), (2, False)])
def test_of_fewer_than_three_animals_of_a_class_no_auc_is_shown(found, of_a_class, shown):
    scores = {level: scores | {"n_per_class": [3, of_a_class]} for level, scores in found.scores.items()}
    pictures = collections.defaultdict(lambda: Picture(b"", "", ""))
    parts = sections(dataclasses.replace(found, scores=scores), pictures, {**VERSIONS, "command": ""})
    (table,) = [table for part in parts for table in part.tables if "Brier score" in table.header]
    assert ("AUC" in table.header) == shown and all(len(row) == len(table.header) for row in table.rows)


def test_one_animal_without_a_label_is_not_tested(classifier, build, undrawn):
    options = ExplainOptions(subjects=("sim001",), windows=12, neurons=4)
    found = explain(classifier, build, options)
    assert not any(verdict.tested for verdict in (*found.verdicts.values(), found.neurons))
    assert found.by_activity is None and found.separation is None and found.scores == {}
    assert "could not be tested: there are fewer than 3 animals" in lead(found)[-1]
    assert set(draw(found)) >= {"example_window", "neurons", "frames_frame_ablation"} and len(undrawn) == 9
    parts = sections(found, collections.defaultdict(lambda: Picture(b"", "", "")), {**VERSIONS, "command": ""})
    assert "no label was asked for" in " ".join(text for part in parts for text in part.text)


VERSIONS = {"versions": {}, "weights_sha256": "", "build_sha256": ""}


def test_what_separates_groups_that_the_model_does_not_tell_is_stamped(found, undrawn):
    one = Estimate(1.0, 0.9, 1.1)
    lost = collections.defaultdict(lambda: one)
    separated = Separation(("control", "planted"), (3, 3), one, {"own": lost, "all channels": lost}, "own", "level")
    for tells in (True, False):
        trial = dataclasses.replace(found.trial, groups=dataclasses.replace(found.trial.groups, tells=tells))
        told = dataclasses.replace(found, separation=separated, trial=trial)
        drawn = report._draw_separation(told)
        assert (separated.sentence in lead(told)) == tells and drawn.title == "What separates control from planted"
        stamped = [text.get_text().replace("\n", " ") for text in undrawn.pop().texts]
        assert stamped == ([] if tells else [f"not faithful: {NO_GROUPS}"])
        part = report._separation(told, {"separation": drawn})
        assert part.warnings == ([] if tells else [f"{NO_GROUPS.capitalize()}."])
    nothing = dataclasses.replace(separated, lost={}, gap=Estimate(1.0, -0.1, 2.1))
    assert report._separation(dataclasses.replace(found, separation=nothing), {}).text == [nothing.sentence]


def test_no_explanation_of_random_weights_passes(classifier, build, tmp_path):
    model = NeurtForSequenceClassification.from_pretrained(classifier)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2)
    model.save_pretrained(tmp_path)
    NeurtProcessor.from_pretrained(classifier).save_pretrained(tmp_path)
    found = explain(tmp_path, build, dataclasses.replace(OPTIONS, windows=12, neurons=4))
    for verdict in (*found.verdicts.values(), found.neurons):
        assert verdict.stamp == f"not faithful: {NO_GROUPS}"
    assert lead(found)[-1] == "None of the explanations below passed its test: do not read biology into them."


def test_the_command_writes_a_folder_and_says_what_may_be_believed(
    neurt, classifier, build, found, tmp_path, monkeypatch, undrawn
):
    asked = []
    monkeypatch.setattr(explanation, "explain", lambda *words: asked.append(words) or found)
    words = ["explain", "report", classifier, build, "--output", tmp_path / "out"]
    chosen = ["--label", "group", "--windows", 12, "--subject", "sim001", "--subject", "sim002"]
    code, said, _ = neurt(*words, *chosen, "--recording", "r", "--missing-neighbours", "mask", "--seed", 3)
    options = ExplainOptions("group", ("sim001", "sim002"), "r", windows=12, missing_neighbours="mask", seed=3)
    assert [(str(model), place, given) for model, place, given in asked] == [(str(classifier), build, options)]
    assert code == 0 and "\n".join(lead(found)) in said and f"saved to {tmp_path / 'out' / 'report.html'}" in said
    assert "neurt explain report" in read(tmp_path / "out")[1]["command"]
    code, _, error = neurt(*words)
    assert code == 2 and error.count("\n") == 1 and "does not exist yet" in error and len(asked) == 1


def test_a_recording_that_is_not_there_is_refused(neurt, classifier, build, tmp_path):
    words = ["explain", "report", classifier, build, "--output", tmp_path / "out"]
    code, _, error = neurt(*words, "--recording", "other")
    assert code == 2 and error.count("\n") == 1 and error.endswith("got 'other'\n")
    assert not (tmp_path / "out").exists()


def test_a_masked_model_is_refused(neurt, pretrained, build, tmp_path):
    for model in (pretrained, "shipped"):
        code, _, error = neurt("explain", "report", model, build, "--output", tmp_path / "out")
        assert code == 2 and error.startswith("neurt: expected a classifier, got a masked model: ")
        assert error.endswith("; neurt finetune makes a classifier of it\n") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_page_opens_in_a_browser_without_a_network_and_text_of_strangers_is_text(visit, folder):
    page = visit(folder / "report.html")
    assert page.locator("td", has_text=f"{ATTACK}sim005").first.is_visible()
    assert page.locator("pre").inner_text() == f"neurt explain report {ATTACK}"
    drawn = page.locator("img").evaluate_all("(images) => images.map((image) => image.naturalWidth)")
    assert len(drawn) == len(list(folder.glob("*.png"))) and min(drawn) > 400
