"""A whole study from a build to its report: the verdict, the baselines, the checks, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
from neurt.crossval.data import StudyOptions
from neurt.crossval.report import verdict, warnings
from neurt.crossval.study import PROBE, crossval

OPTIONS = StudyOptions("group", permutations=5)


@pytest.fixture(scope="module")
def study(build, pretrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "out"
    crossval(build, folder, model=pretrained, options=OPTIONS, command="neurt crossval `a`")
    return folder


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_the_report_says_who_was_told_apart_beside_what_and_how_to_run_it_again(study):
    text = (study / "report.md").read_text()
    assert text.index(PROBE) < text.index("## Who was told apart")
    assert "3 control, 3 planted; recordings: 12" in text and "leave-pair-out" in text
    for part in ("simple statistics", "statistics of all channels", "Had single windows been dealt out", "| sim006 |"):
        assert part in text
    assert "**Simulated recordings are among these.**" in text and "neurt crossval" in text
    assert "more than 5 ways, so p cannot be below 0.17: no result can be significant" in text
    for name in ("subjects", "roc", "calibration", "confounds"):
        assert f"({name}.png)" in text and (study / f"{name}.png").stat().st_size > 10_000


def test_animals_that_pretraining_has_seen_are_the_first_thing_said(study):
    text = (study / "report.md").read_text()
    assert results(study)["checks"]["seen_in_pretraining"] == ["sim001", "sim002", "sim003", "sim004"]
    assert "Pretraining has seen sim001, sim002, sim003, sim004: this is no test on new animals" in text


def test_results_hold_every_number_of_the_report(study):
    found = results(study)
    assert found["subjects"] == {f"sim00{i}": (i + 1) % 2 for i in range(1, 7)}
    assert set(found["levels"]) == {"window", "recording", "subject", "subject, after temperature scaling"}
    assert found["levels"]["subject"]["n"] == 6 and found["levels"]["window"]["n"] == found["num_windows"]
    probe = found["predictors"][PROBE]
    assert probe["labellings"] == 20 and not probe["exact"] and len(probe["subjects"]) == 6
    differences = [row["probe_is_better_by"] for name, row in found["predictors"].items() if name != PROBE]
    others = [row["score"] for name, row in found["predictors"].items() if name != PROBE]
    np.testing.assert_allclose(differences, [probe["score"] - score for score in others])


def test_the_same_study_gives_the_same_results(study, build, pretrained, tmp_path):
    crossval(build, tmp_path / "again", model=pretrained, options=OPTIONS, command="neurt crossval `a`")
    assert (tmp_path / "again/results.json").read_bytes() == (study / "results.json").read_bytes()


def test_the_verdict_names_baselines_that_are_as_good():
    row = {"score": 0.8, "interval": [0.6, 0.9], "p_value": 0.01, "exact": True}

    def said(better, low):
        baseline = {**row, "probe_is_better_by": better, "difference_interval": [low, 0.5]}
        found = {"predictors": {"probe": row, "plain": baseline}, "score_name": "ROC-AUC", "simulated": False}
        return verdict({**found, "subjects": {"a": 0, "b": 1}})

    assert "plain did as well or better" in said(0.0, -0.1) and "ROC-AUC 0.800 [0.600, 0.900]" in said(0.0, -0.1)
    assert "higher than plain, but the difference may be chance" in said(0.1, -0.1)
    assert "better than each baseline" in said(0.2, 0.1) and "p = 0.01 (exact)" in said(0.2, 0.1)


def test_suspicious_properties_are_a_warning():
    checks = {
        "seen_in_pretraining": [],
        "distribution": {},
        "confounds": [{"name": "recording date", "suspicious": True}],
    }
    assert "also differ in recording date" in warnings({"checks": checks})[0]
    checks["confounds"][0]["suspicious"] = False
    assert not warnings({"checks": checks})


def test_the_command_runs_a_study_with_stratified_folds_and_without_p_values(neurt, build, pretrained, tmp_path):
    words = ["--label", "group", "--model", pretrained, "--folds", "3", "--permutations", "0"]
    code, out, err = neurt("crossval", build, *words, "--output", tmp_path / "out")
    assert code == 0, err
    assert "3 stratified folds, seed 0" in out and "no permutation test was asked for" in out
    assert "p_value" not in results(tmp_path / "out")["predictors"][PROBE]


def test_so_many_windows_of_each_recording_are_read(build, pretrained, tmp_path):
    crossval(
        build, tmp_path / "out", model=pretrained, options=dataclasses.replace(OPTIONS, windows=3, permutations=0)
    )
    assert results(tmp_path / "out")["num_windows"] == 12 * 3


def test_a_number_is_predicted_on_request(neurt, rebuild, pretrained, tmp_path):
    def with_age(recording):
        return dataclasses.replace(recording, labels={"age": int(recording.subject_id[-1])})

    build = rebuild(tmp_path / "build", with_age)
    words = ["--label", "age", "--regression", "--model", pretrained, "--permutations", "3"]
    code, out, err = neurt("crossval", build, *words, "--output", tmp_path / "out")
    assert code == 0, err
    assert "concordance index" in out and "6 animals, 1 to 6" in out
    assert not results(tmp_path / "out")["levels"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--label", "genotype"], "expected a label 'genotype', got labels: group"),
        (["--label", "group", "--folds", "4"], "expected from 2 to 3 folds"),
        (["--label", "group", "--folds", "many"], "expected folds as leave-pair-out, leave-one-out or a number"),
        (["--label", "group", "--regression"], "expected numbers as group"),
        (["--label", "group", "--model", "nowhere"], "expected the folder of a model"),
    ],
)
def test_what_cannot_be_studied_is_refused_in_one_line_and_nothing_is_left(
    neurt, build, pretrained, tmp_path, words, message
):
    words = [*words, *(() if "--model" in words else ("--model", pretrained))]
    code, _, err = neurt("crossval", build, *words, "--output", tmp_path / "out")
    assert code == 2 and message in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())
