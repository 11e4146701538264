"""A whole study from a build to its report: the verdict, the baselines, the checks, and what is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from neurt.crossval.data import PROBE, StudyOptions
from neurt.crossval.protocol import Scheme
from neurt.crossval.report import power, verdict, warnings
from neurt.crossval.study import crossval, open_study
from neurt.distribution import REFERENCE_FILE, Reference

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
    assert found["provenance"].keys() == {"build_sha256", "weights_sha256", "folds_sha256", "versions"}
    assert f"weights {found['provenance']['weights_sha256'][:12]}" in (study / "report.md").read_text()
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

    def said(better, low, name="plain"):
        baseline = {**row, "probe_is_better_by": better, "difference_interval": [low, 0.5]}
        found = {"predictors": {"probe": row, name: baseline}, "score_name": "ROC-AUC", "simulated": False}
        return verdict({**found, "subjects": {"a": 0, "b": 1}})

    assert "plain did as well or better, without a neural network" in said(0.0, -0.1)
    assert "frozen did as well or better.**" in said(-0.1, -0.2, PROBE)
    assert "ROC-AUC 0.800 [0.600, 0.900]" in said(0.0, -0.1)
    assert "higher than plain, but the difference may be chance" in said(0.1, -0.1)
    assert "no evidence that it can tell them" not in said(0.2, 0.1)
    row["p_value"] = 0.05
    assert "p = 0.05 (exact). That is no evidence that it can tell them" in said(0.2, 0.1)
    row["p_value"] = 0.01
    assert "better than each baseline" in said(0.2, 0.1) and "p = 0.01 (exact)" in said(0.2, 0.1)


@pytest.mark.parametrize(
    ("score_name", "said"),
    [
        ("ROC-AUC", "Every pair of subjects is in order; the bootstrap cannot show how uncertain that is."),
        ("balanced accuracy", "Every subject is on its side; the bootstrap cannot show how uncertain that is."),
    ],
)
def test_the_verdict_says_that_an_interval_without_width_is_not_certainty(score_name, said):
    def of(score, interval):
        row = {"score": score, "interval": interval, "p_value": 0.01, "exact": True}
        found = {"predictors": {"probe": row}, "score_name": score_name, "simulated": False}
        return verdict({**found, "subjects": {"a": 0, "b": 1}})

    assert "1.000 [1.000, 1.000]" in of(1.0, [1.0, 1.0]) and said in of(1.0, [1.0, 1.0])
    assert "bootstrap" not in of(0.95, [0.7, 1.0])


def test_how_small_p_can_be_is_said_of_a_predictor_that_fewer_labellings_were_tried_for():
    predictors = {"tuned": {"smallest_p": 0.05}, "probe": {"smallest_p": 0.001}, "other": {}}
    said = power({"predictors": predictors, "checks": {"power": "Not below 0.001."}})
    assert said == "Not below 0.001. That of tuned, for fewer labellings, cannot be below 0.05."
    assert power({"predictors": {"probe": {}}, "checks": {"power": "Not below 0.1."}}) == "Not below 0.1."


def test_suspicious_properties_are_a_warning():
    checks = {
        "seen_in_pretraining": [],
        "sessions_as_subjects": False,
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
    assert "Where classes do not divide evenly into the folds, pooling puts it below 0.5" in out
    assert "p_value" not in results(tmp_path / "out")["predictors"][PROBE]
    assert "dealt out to these subjects in 20 ways, which make 10 different groupings, so p cannot be below 0.1" in out


def test_leave_one_out_gives_no_auc_and_says_that_p_alone_judges_it(build, pretrained, tmp_path):
    options = dataclasses.replace(OPTIONS, scheme=Scheme("leave-one-out"), windows=5)
    crossval(build, tmp_path / "out", model=pretrained, options=options)
    text = (tmp_path / "out/report.md").read_text()
    assert "leave-one-out is right less often than by chance, so the p-value alone, not" in text
    assert "may not be ranked: no AUC" in text and "within folds" not in text
    assert not (tmp_path / "out/roc.png").exists() and (tmp_path / "out/calibration.png").exists()
    rows = results(tmp_path / "out")["levels"].values()
    assert all(row["roc_auc"] is None and "no AUC" in row["undefined"] for row in rows)


def test_so_many_windows_of_each_recording_are_read(build, pretrained, tmp_path):
    crossval(
        build, tmp_path / "out", model=pretrained, options=dataclasses.replace(OPTIONS, windows=3, permutations=0)
    )
    assert results(tmp_path / "out")["num_windows"] == 12 * 3


@pytest.fixture
def ages(rebuild, tmp_path):
    """The build with the number of each mouse as its age."""

    def with_age(recording):
        return dataclasses.replace(recording, labels={"age": int(recording.subject_id[-1])})

    return rebuild(tmp_path / "build", with_age)


def test_sessions_that_were_taken_for_animals_are_said(rebuild, pretrained, tmp_path, study):
    assert not results(study)["checks"]["sessions_as_subjects"]
    build = rebuild(
        tmp_path / "build", lambda recording: dataclasses.replace(recording, subject_id=recording.session_id)
    )
    crossval(build, tmp_path / "out", model=pretrained, options=dataclasses.replace(OPTIONS, permutations=0))
    assert "Subjects are named like their sessions" in (tmp_path / "out/report.md").read_text()


def test_two_animals_of_a_group_are_too_few(neurt, rebuild, pretrained, tmp_path):
    build = rebuild(tmp_path / "build", lambda recording: None if recording.subject_id == "sim001" else recording)
    words = ["--label", "group", "--model", pretrained, "--output", tmp_path / "out"]
    code, _, err = neurt("crossval", build, *words)
    assert code == 2
    assert "expected at least 3 subjects of each group for a study, got 2 of control, 3 of planted" in err


def test_three_animals_are_too_few_for_a_number(neurt, rebuild, pretrained, tmp_path):
    def first_three(recording):
        number = int(recording.subject_id[-1])
        return dataclasses.replace(recording, labels={"age": number}) if number < 4 else None

    words = ["--label", "age", "--regression", "--model", pretrained, "--output", tmp_path / "out"]
    code, _, err = neurt("crossval", rebuild(tmp_path / "build", first_three), *words)
    assert code == 2 and "expected at least 4 subjects for a number, got 3" in err


def test_a_number_is_predicted_on_request(neurt, ages, pretrained, tmp_path):
    words = ["--label", "age", "--regression", "--model", pretrained, "--permutations", "3"]
    code, out, err = neurt("crossval", ages, *words, "--output", tmp_path / "out")
    assert code == 0, err
    assert "concordance index" in out and "6 animals, 1 to 6" in out
    assert not results(tmp_path / "out")["levels"]
    assert "Within all, single windows tell which of 6 animals they are of" in out


@pytest.fixture
def model_of(pretrained, tmp_path, monkeypatch):
    """Make a model to which some recordings are foreign: it reconstructs them as none of the pretraining was."""

    def make(foreign):
        def errors(model, recordings, processor, **options):
            return np.array([9.0 if recording.recording_id.startswith(foreign) else 1.0 for recording in recordings])

        monkeypatch.setattr("neurt.distribution.reconstruction_errors", errors)
        model = shutil.copytree(pretrained, tmp_path / "model", ignore=shutil.ignore_patterns("training"))
        measured_on = {"held_out_recordings": 5, "training_recordings": 15, "simulated": True}
        Reference(np.array([0.5] * 10 + [1.5] * 10), measured_on).save(model)
        return model

    return make


@pytest.fixture
def compared(neurt, build, model_of, tmp_path):
    """Run a study of recordings of which some are foreign."""

    def run(foreign, *words, build=build, label="group"):
        words = ["--label", label, "--permutations", "0", "--model", model_of(foreign), *words]
        return neurt("crossval", build, *words, "--output", tmp_path / "out")

    return run


FOREIGN = ("sim001", "sim002_ses-1")


def test_recordings_unlike_those_of_the_pretraining_are_named_and_used_all_the_same(compared, tmp_path):
    code, report, err = compared(FOREIGN)
    assert code == 0, err
    found = results(tmp_path / "out")
    rows = found["checks"]["distribution"]["recordings"]
    assert len(rows) == 12 and {name for name, row in rows.items() if row["outside"]} == {
        "sim001_ses-1_field-1",
        "sim001_ses-2_field-1",
        "sim002_ses-1_field-1",
    }
    assert {row["percentile"] for row in rows.values()} == {0.5, 1}
    # Of 21 places among 20 recordings the two ends are outside: 12 * 2 / 21.
    line = "3 of 12 recordings are unlike those of the pretraining (by chance: 1.1), and used all the same"
    assert line in report and report.index(line) < report.index("## Who was told apart")
    assert "| sim002_ses-1_field-1 | sim002 | 1 |" in report
    assert "among those of the simulated recordings that its pretraining held out (5) and trained on (15). " in report
    assert "Outside of their central 99% lie 3 of 12. Were each just like those, 9.5% of them would lie" in report
    assert found["num_recordings"] == 12 and len(found["subjects"]) == 6


def test_recordings_are_abstained_on_before_anything_is_fitted(compared, ages, tmp_path):
    code, report, err = compared(FOREIGN, "--abstain", "--regression", build=ages, label="age")
    assert code == 0, err
    found = results(tmp_path / "out")
    assert found["num_recordings"] == 9 and list(found["subjects"]) == [f"sim00{i}" for i in range(2, 7)]
    assert len(found["options"]["left_out"]) == 3 and len(found["checks"]["distribution"]["recordings"]) == 12
    assert "(by chance: 1.1), and left out" in report
    assert "They were left out of the study before anything was fitted, and with them sim001." in report
    assert "recordings: 9" in report


def test_what_was_left_out_before_stays_out_when_more_is_abstained_on(ages, model_of):
    given = ("sim002_ses-1_field-1",)
    options = StudyOptions("age", problem_type="regression", left_out=given, abstain=True)
    found = open_study(ages, model_of(("sim001",)), options)
    assert found.options.left_out == (*given, "sim001_ses-1_field-1", "sim001_ses-2_field-1")
    assert len(found.recordings) == 12 - 3


def test_no_recording_outside_is_one_sentence(compared, tmp_path):
    code, report, err = compared(("none",), "--abstain")
    assert code == 0, err
    assert "Outside of their central 99% lie 0 of 12" in report and "foreign but filled as well" in report
    assert "recording outside" not in report
    assert "unlike" not in report and results(tmp_path / "out")["options"]["left_out"] == []


@pytest.mark.parametrize(
    ("foreign", "message"),
    [
        (("sim001", "sim003"), "got 1 of control, 3 of planted; without 4 of 12 recordings, which are unlike those"),
        (("sim",), "got none (no recordings at all); without 12 of 12 recordings, which are unlike those"),
    ],
)
def test_too_few_animals_left_are_refused(compared, foreign, message, tmp_path):
    code, _, err = compared(foreign, "--abstain")
    assert code == 2 and message in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_nothing_is_compared_without_errors_of_the_pretraining(neurt, build, pretrained, tmp_path):
    model = shutil.copytree(pretrained, tmp_path / "model", ignore=shutil.ignore_patterns("training", REFERENCE_FILE))
    words = [build, "--label", "group", "--permutations", "0", "--model", model, "--output", tmp_path / "out"]
    code, out, err = neurt("crossval", *words)
    assert code == 0, err
    assert f"Not measured: no {REFERENCE_FILE} lies beside the model's weights." in out
    code, _, err = neurt("crossval", *words[:-1], tmp_path / "other", "--abstain")
    assert code == 2 and "lies beside the model's weights; leave --abstain out" in err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--label", "genotype"], "expected a label 'genotype', got labels: group"),
        (["--label", "group", "--folds", "4"], "expected from 2 to 3 folds"),
        (["--label", "group", "--folds", "many"], "expected folds as leave-pair-out, leave-one-out or a number"),
        (["--label", "group", "--regression"], "expected numbers as group"),
        (["--label", "group", "--model", "nowhere"], "expected the folder of a model"),
        (["--label", "group", "--finetune", "mine"], "expected a recipe among default, original, got 'mine'"),
        (["--label", "group", "--windows", "0"], "expected windows of 1 or more, got 0"),
        (["--label", "group", "--missing-neighbours", "drop"], "missing_neighbours of error or mask, got 'drop'"),
        (["--label", "group", "--permutations", "-1"], "expected permutations of 0 or more, got -1"),
        (["--label", "group", "--finetune-permutations", "9"], "for each labelling, got none; pass --finetune"),
        (["--label", "group", "--finetune", "default", "--jobs", "0"], "expected one fold at a time or more, got 0"),
    ],
)
def test_what_cannot_be_studied_is_refused_in_one_line_and_nothing_is_left(
    neurt, build, pretrained, tmp_path, words, message
):
    words = [*words, *(() if "--model" in words else ("--model", pretrained))]
    code, _, err = neurt("crossval", build, *words, "--output", tmp_path / "out")
    assert code == 2 and message in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())
