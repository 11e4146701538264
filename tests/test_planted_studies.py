"""Benchmarks of studies of simulated mice: what is measured, that a run goes on where it was, and what is said."""

import dataclasses
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from neurt import NeurtConfig, NeurtForMaskedSignalModeling, NeurtProcessor
from neurt.baselines import SIMPLE_STATISTICS, recording_statistics
from neurt.crossval.cohort import make_cohort
from neurt.crossval.data import StudyOptions
from neurt.crossval.learners import logistic
from neurt.crossval.protocol import Predictor, Scheme, cross_validate
from neurt.crossval.study import CHANNEL_STATISTICS, PROBE
from neurt.dataset_scripts.parquet_build import read_build
from neurt.dataset_scripts.simulate import simulate_study
from neurt.dataset_scripts.simulation_config import SimulationConfig

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import null_studies
import planted_groups
from null_studies import null_scores
from planted_groups import KINDS, SIGNATURE, WITHHELD, best_of, neighbour_section, planted_studies, signature_section
from simulated_studies import SimulatedStudy, as_build, measure_all, standard_error

# Three a group: of two, temperatures cannot be fitted within the training mice of a fold.
MICE = {"subjects_per_group": 3, "neurons": 6, "duration": 32.0, "effect_size": 0.0}
SETTINGS = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained model that has seen the first mouse of the study "seen"."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = NeurtConfig(**SETTINGS, pretraining_subjects=["seen-sim001"])
    NeurtForMaskedSignalModeling(config).save_pretrained(folder)
    NeurtProcessor(window_length=40).save_pretrained(folder)
    return folder


@pytest.fixture
def study(model):
    def make(name="null3", seed=3, positions=True):
        options = StudyOptions("group", permutations=4, windows=5, seed=seed)
        return SimulatedStudy(name, SimulationConfig(**MICE, seed=seed), options, model, positions)

    return make


# Studies.


def test_mice_of_a_study_bear_its_name_and_their_positions_can_be_withheld(study):
    with as_build(study()) as build, as_build(study("other", positions=False)) as without:
        seen, blind = list(read_build(build)), list(read_build(without))
    assert not build.exists()
    assert [recording.subject_id for recording in seen] == [f"null3-sim00{i}" for i in range(1, 7)]
    assert [recording.subject_id for recording in blind] == [f"other-sim00{i}" for i in range(1, 7)]
    assert all(recording.centroids is not None for recording in seen)
    assert all(recording.centroids is None for recording in blind)
    for recording, same, original in zip(seen, blind, simulate_study(study().config)[0], strict=True):
        np.testing.assert_array_equal(recording.traces, original.traces)
        np.testing.assert_array_equal(same.traces, original.traces)


def test_a_null_study_is_scored_mouse_by_mouse_on_the_folds_of_a_study(study):
    found = null_scores(study())
    recordings = list(simulate_study(study().config)[0])
    statistics = np.stack([recording_statistics(recording) for recording in recordings])
    held = cross_validate(
        Predictor("", statistics, logistic),
        make_cohort(recordings, "group"),
        Scheme("leave-pair-out"),
        permutations=4,
        seed=3,
    )
    assert set(found["predictors"]) >= {PROBE, SIMPLE_STATISTICS, CHANNEL_STATISTICS}
    assert found["predictors"][SIMPLE_STATISTICS] == {"auc": held.score, "p_value": held.test.p_value}
    assert found["scheme"] == "leave-pair-out"


@pytest.mark.parametrize("measure", [null_scores, planted_groups.study_results])
def test_mice_that_pretraining_has_seen_are_refused(study, measure):
    with pytest.raises(ValueError, match="pretrained on others than these mice, got seen-sim001"):
        measure(study("seen"))


# Runs.


def test_an_interrupted_run_measures_only_what_is_left(study, tmp_path):
    lines, measured = tmp_path / "results" / "lines.jsonl", []

    def measure(each):
        if len(measured) == 2:
            raise InterruptedError
        measured.append(each.name)
        return {"score": len(each.name), "missing": float("nan")}

    studies = [study("a", 0), study("bb", 1), study("ccc", 2)]
    with pytest.raises(InterruptedError):
        measure_all(measure, studies, lines=lines)
    complete = lines.read_bytes()
    lines.write_bytes(complete + b'{"study": "ccc", "sett')
    measured[:] = []
    found = measure_all(measure, studies, lines=lines)
    assert measured == ["ccc"] and list(found) == ["a", "bb", "ccc"]
    assert [each["score"] for each in found.values()] == [1, 2, 3]
    assert found["a"]["missing"] is None and found["ccc"]["missing"] is None
    assert lines.read_bytes().startswith(complete) and len(lines.read_text().splitlines()) == 3
    measured[:] = []
    assert measure_all(measure, studies[1:], lines=lines) == {name: found[name] for name in ("bb", "ccc")}
    assert not measured


def test_numbers_of_other_settings_or_another_model_are_not_taken_over(study, tmp_path, model):
    lines = tmp_path / "lines.jsonl"
    measure_all(lambda each: {}, [study("a", 0)], lines=lines)
    other = tmp_path / "model"
    NeurtForMaskedSignalModeling(NeurtConfig(**SETTINGS)).save_pretrained(other)
    changed = [
        study("a", 1),
        study("a", 0, positions=False),
        dataclasses.replace(study("a", 0), model=other),
        dataclasses.replace(study("a", 0), options=StudyOptions("group", permutations=5, windows=5)),
    ]
    for each in changed:
        with pytest.raises(ValueError, match=r"in .*lines.jsonl, got a with others; remove the file"):
            measure_all(lambda each: {}, [each], lines=lines)
    copied = dataclasses.replace(study("a", 0), model=shutil.copytree(model, tmp_path / "elsewhere"))
    assert list(measure_all(None, [copied], lines=lines)) == ["a"]


def test_two_processes_find_what_one_does(study):
    def found(jobs):
        results = measure_all(null_scores, [study("a", 0), study("b", 1)], jobs=jobs)
        return {name: result["predictors"] for name, result in results.items()}

    assert found(2) == found(1)


def test_the_null_benchmark_reports_and_draws_what_it_measured(monkeypatch, model, tmp_path, capsys):
    monkeypatch.setattr(null_studies, "MICE", MICE)
    monkeypatch.setattr(null_studies, "PERMUTATIONS", 4)
    output = tmp_path / "null.md"
    words = ["null_studies.py", "--seeds", "2", "--model", str(model), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", words)
    null_studies.main()
    rows = [json.loads(line) for line in output.with_suffix(".jsonl").read_text().splitlines()]
    assert [row["study"] for row in rows] == ["null0", "null1"]
    first, second = (row["found"]["predictors"][PROBE]["auc"] for row in rows)
    assert f"| {PROBE} | {(first + second) / 2:.3f} ± {abs(first - second) / 2:.3f} |" in output.read_text()
    assert "Held out by leave-pair-out; 4 labellings" in output.read_text()
    assert output.with_suffix(".png").stat().st_size > 10_000
    saved = json.loads(output.with_suffix(".json").read_text())
    assert saved["summary"][PROBE]["auc"]["mean"] == pytest.approx((first + second) / 2)
    small = [row["found"]["predictors"][PROBE]["p_value"] < 0.05 for row in rows]
    assert saved["summary"][PROBE]["significant"] == sum(small)
    provenance = saved["provenance"]
    assert (
        provenance["command"] == f"python benchmarks/null_studies.py --seeds 2 --model {model.name} --output null.md"
    )
    assert provenance["simulated"] and provenance["seed"] == 0 and "torch" in provenance["versions"]
    weights = (model / "model.safetensors").read_bytes()
    assert provenance["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert len({provenance["data_sha256"], provenance["split_sha256"]} - {None}) == 2
    monkeypatch.setattr(null_studies, "null_scores", None)
    null_studies.main()
    assert output.read_text() in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--seeds", "1"], ["--jobs", "0"]])
def test_too_few_seeds_or_jobs_are_refused(monkeypatch, words, capsys):
    monkeypatch.setattr(sys, "argv", ["null_studies.py", *words])
    with pytest.raises(SystemExit):
        null_studies.main()
    assert "expected two seeds and one job at least" in capsys.readouterr().err


# Words.


def test_the_standard_error_is_of_the_mean():
    assert standard_error([1.0, 2.0, 3.0, 4.0]) == pytest.approx(np.sqrt(5 / 3) / 2)


def test_a_null_verdict_counts_small_p_values_and_asks_whether_chance_is_within_two_errors():
    p_values = np.array([0.049, 0.05, 0.2, 0.9] * 5)
    said = null_studies.verdict("probe", np.array([0.4, 0.5] * 10), p_values)
    assert "p < 0.05 in 5 of 20 simulated studies, **more than** 2" in said
    assert "mean AUC 0.450 ± 0.011, 0.5 does **not** lie within two" in said
    said = null_studies.verdict("probe", np.array([0.4, 0.58] * 10), np.array([0.01] * 2 + [0.5] * 18))
    assert "p < 0.05 in 2 of 20 simulated studies, at most 2" in said and "0.5 lies within two" in said


def test_planted_studies_with_and_without_positions_are_of_the_same_mice(model):
    studies = planted_studies(3, model)
    assert list(studies) == list(KINDS) and len({s.name for kind in studies.values() for s in kind}) == 4 * 3 + 9
    for seen, blind in zip(studies["synchrony"], studies[WITHHELD], strict=True):
        assert seen.config == blind.config and seen.positions and not blind.positions
        assert (seen.options.missing_neighbours, blind.options.missing_neighbours) == ("error", "mask")
    assert all(each.config.effect_size == 0 for each in studies[SIGNATURE])
    assert [each.config.seed for each in studies["hyperactivity"]] == [0, 1, 2]


def made_up(**scores):
    """Studies in which predictors score what is said."""
    names = {"probe": PROBE, "simple": SIMPLE_STATISTICS, "channels": CHANNEL_STATISTICS}
    return [
        {
            "predictors": {
                names[name]: {"score": score, "interval": [0.1, 0.9], "p_value": 0.04 if score > 0.7 else 0.3}
                for name, score in zip(scores, row, strict=True)
            },
            "verdict": f"verdict {place}",
        }
        for place, row in enumerate(zip(*scores.values(), strict=True))
    ]


def test_the_best_is_named_and_how_far_the_model_is_from_the_best_of_the_others():
    said = best_of(planted_groups.scores(made_up(probe=[0.6, 0.7], simple=[0.8, 0.8], channels=[0.5, 0.5])))
    assert f"**{SIMPLE_STATISTICS}**, 0.800 ± 0.000" in said
    assert f"{PROBE}, less {SIMPLE_STATISTICS}: -0.150 ± 0.050" in said
    said = best_of(planted_groups.scores(made_up(probe=[0.9, 0.9], simple=[0.8, 0.7], channels=[0.5, 0.5])))
    assert f"**{PROBE}**" in said and f"{PROBE}, less {SIMPLE_STATISTICS}: +0.150 ± 0.050" in said


def test_neighbour_channels_win_if_they_beat_all_that_single_traces_tell():
    withheld = made_up(probe=[0.5, 0.6], simple=[0.6, 0.6], channels=[0.4, 0.5])
    text, table = neighbour_section(made_up(probe=[0.7, 0.7], simple=[0.6, 0.6], channels=[0.8, 0.9]), withheld)[1:]
    assert f"channels win: the best that sees them, {CHANNEL_STATISTICS}, is +0.250 ± 0.050 better" in text
    assert f"all that see single traces, {SIMPLE_STATISTICS}." in text
    assert f"add +0.150 ± 0.050 to {PROBE}, +0.400 ± 0.000 to {CHANNEL_STATISTICS}" in text
    assert f"| {PROBE}, neighbours withheld | 0.550 ± 0.050 | 0 | 0.50 [0.10, 0.90], p = 0.3 |" in table
    assert SIMPLE_STATISTICS not in table
    text = neighbour_section(made_up(probe=[0.7, 0.6], simple=[0.6, 0.6], channels=[0.4, 0.5]), withheld)[1]
    assert "do **not** win" in text


def test_a_signature_is_shown_by_windows_and_by_mice():
    found = made_up(probe=[0.4, 0.8], simple=[0.5, 0.5])
    for place, each in enumerate(found):
        each["window_split"] = {"random_windows": 0.9 + place / 10, "whole_animals": 0.5}
        each["identity"] = [{"balanced_accuracy": 0.75, "chance": 0.1}] * 2
    _, text, means, table, _ = signature_section(found)
    assert "each mouse stands on both sides, is 0.950 ± 0.050; with whole animals held out it is 0.500 ± 0.000" in text
    assert f"{PROBE} 0.600 ± 0.200; {SIMPLE_STATISTICS} 0.500 ± 0.000." in means
    assert "| study 1 | 1.00 | 0.50 | 0.80 [0.10, 0.90], p = 0.04 | 0.75 (chance 0.10), 0.75 (chance 0.10) |" in table


def test_the_planted_benchmark_reports_what_studies_say(monkeypatch, model, tmp_path):
    monkeypatch.setattr(planted_groups, "MICE", {key: MICE[key] for key in MICE if key != "effect_size"})
    monkeypatch.setattr(planted_groups, "PERMUTATIONS", 3)
    real, results = planted_groups.study_results, []

    def once(study):
        if not results:
            results.append(real(study))
        return results[0]

    monkeypatch.setattr(planted_groups, "study_results", once)
    output = tmp_path / "planted.md"
    monkeypatch.setattr(
        sys, "argv", ["planted_groups.py", "--seeds", "2", "--model", str(model), "--output", str(output)]
    )
    planted_groups.main()
    text = output.read_text()
    assert f"- Study 1: {PROBE}: ROC-AUC" in text and "over 6 simulated subjects, p = " in text
    assert "half of the neurons fire 3 times as fast" in text and "90% of the variance" in text
    for heading in ("## Hyperactivity", "## Variability", "## Synchrony", "### The same mice", "## A signature"):
        assert text.count(heading) == 1
    assert len(output.with_suffix(".jsonl").read_text().splitlines()) == 4 * 2 + 6
    saved = json.loads(output.with_suffix(".json").read_text())["summary"]
    of_kind = saved["kinds"]["synchrony"][SIMPLE_STATISTICS]["auc"]
    assert of_kind == {"mean": results[0]["predictors"][SIMPLE_STATISTICS]["score"], "standard_error": 0.0, "n": 2}
    assert saved["windows_of_signatures"]["random_windows"]["mean"] == pytest.approx(
        results[0]["window_split"]["random_windows"]
    )
