"""The summary: what it says, what it draws, and that strangers' text stays text."""

import dataclasses
import re

import matplotlib.image
import numpy as np
import pytest
from neurt.evaluation import ClassificationScores, MeasuredOn, ReconstructionExample, ReconstructionScores
from neurt.summary import reconstruction_figure, subjects_figure, write_summary


def measured_on(simulated=True):
    return MeasuredOn(simulated, 0, 10, 5, 2, ("a", "b"))


def reconstruction_scores(model_error=0.5, simulated=True):
    def row(predictor, error):
        scores = {"r2": 0.4, "r2_within": 0.3, "mae": 0.1, "cosine": 0.9, "squared_error": error, "n": 7}
        return {"predictor": predictor, "channel": "own", **scores}

    rows = [row("model", model_error), row("linear interpolation", 1.0), row("window mean", 2.0)]
    return ReconstructionScores(rows, measured_on(simulated))


def classification_scores(classes=("wild type", "5xFAD"), auc=0.75, per_class=3):
    number = per_class * len(classes)
    rows = [
        {
            "level": level,
            "predictor": "model",
            "accuracy": 0.5,
            "balanced_accuracy": 0.5,
            "roc_auc": auc,
            "n": number,
            "n_per_class": [per_class] * len(classes),
            "undefined": "",
        }
        for level in ("window", "recording", "subject")
    ]
    subjects = [
        {
            "subject_id": f"m{i}",
            "label": i % len(classes),
            "decision": 0,
            "log_odds": float(i) - 1.5 if len(classes) == 2 else None,
            "margin": -float(i),
            "num_recordings": 1,
        }
        for i in range(number)
    ]
    return ClassificationScores(rows, subjects, classes, measured_on())


def example(sampling_rate=5.0):
    truth = np.linspace(0, 1, 40)
    hidden = np.zeros(40, dtype=bool)
    hidden[[0, 10, 11, 12, 39]] = True
    return ReconstructionExample(truth, hidden, truth + 0.1, truth - 0.1, sampling_rate)


def write(folder, **changes):
    arguments = {
        "title": "A run",
        "reconstruction": reconstruction_scores(),
        "classification": classification_scores(),
        "examples": [example(), example()],
        "split": {"train": ["m0"], "held out": ["m1", "m2"]},
        "simulated": True,
        "command": "neurt demo --seed 0",
    }
    return write_summary(folder, **{**arguments, **changes}).read_text("utf-8")


def test_the_summary_has_command_tables_split_and_files(tmp_path):
    (tmp_path / "model").mkdir()
    text = write(tmp_path)
    assert text.startswith("# A run\n")
    assert "```\nneurt demo --seed 0\n```" in text
    assert "| own | linear interpolation | 0.400 | 0.300 | 0.1 | 0.900 | 1 | 7 |" in text
    assert "| subject | model | 0.500 | 0.500 | 0.750 | 6 | 3 / 3 |" in text
    assert "| held out | 2 | m1, m2 |" in text
    assert text.endswith("- model\\/\n- reconstruction.png\n- subjects.png\n- summary.md\n")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "reconstruction.png",
        "subjects.png",
        "summary.md",
    ]


def test_simulated_data_are_called_so_at_every_score(tmp_path):
    text = write(tmp_path)
    assert "**Simulated recordings are among these.**" in text
    for section in re.split(r"^## ", text, flags=re.M)[2:4]:
        assert "Simulated data: 10 windows" in section
    assert "simulated" in subjects_figure(classification_scores()).axes[0].get_title()
    assert "simulated" in reconstruction_figure([example()], True).get_suptitle()
    assert "imulated" not in write(
        tmp_path, reconstruction=reconstruction_scores(simulated=False), classification=None, simulated=False
    )


def test_scores_that_contradict_the_summary_about_simulation_are_refused(tmp_path):
    with pytest.raises(ValueError, match="simulated=False"):
        write(tmp_path / "new", simulated=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (0.5, "0.50 times that of linear interpolation, 0.25 times that of window mean; better than each baseline."),
        (1.5, "0.75 times that of window mean; **not better than linear interpolation**."),
        (2.0, "1.00 times that of window mean; **not better than linear interpolation and window mean**."),
        (float("nan"), "**not better than linear interpolation and window mean**"),
    ],
)
def test_the_first_line_of_the_scores_says_which_baselines_are_beaten(tmp_path, error, verdict):
    assert verdict in write(tmp_path, reconstruction=reconstruction_scores(error))


def with_baseline(scores, **changes):
    subject = scores.row("subject")
    rows = [subject | {"predictor": "simple statistics"} | changes]
    return dataclasses.replace(scores, rows=scores.rows + rows)


@pytest.mark.parametrize(
    ("auc", "verdict"),
    [
        (0.5, "AUC over 6 simulated test subjects: 0.750 for model, 0.500 for simple statistics; the model did"),
        (0.75, "0.750 for simple statistics; **simple statistics did as well, without a neural network**."),
        (1.0, "1.000 for simple statistics; **simple statistics did better, without a neural network**."),
    ],
)
def test_the_first_line_on_groups_says_whether_simple_statistics_do_as_well(tmp_path, auc, verdict):
    text = write(tmp_path, classification=with_baseline(classification_scores(), roc_auc=auc))
    assert verdict in text
    lines = [line for line in text.splitlines() if line.startswith("| subject |")]
    assert [line.split(" | ")[1] for line in lines] == ["model", "simple statistics"]


def test_groups_are_compared_by_accuracy_where_there_is_no_auc_and_not_at_all_without_a_score(tmp_path):
    alone, nan = classification_scores(auc=float("nan")), float("nan")
    assert "Accuracy over 6 simulated test subjects: 0.500 for model, 0.250 for simple" in write(
        tmp_path, classification=with_baseline(alone, accuracy=0.25)
    )
    undefined = with_baseline(alone, accuracy=nan, undefined="no training recording of class 1")
    for scores in (alone, undefined):
        text = write(tmp_path, classification=scores)
        assert "test subjects" not in text and "\n\n\n" not in text
    assert "subject: no training recording of class 1" in write(tmp_path, classification=undefined)


def test_no_auc_is_shown_where_fewer_than_three_animals_of_a_class_were_tested(tmp_path):
    few = with_baseline(classification_scores(per_class=2), roc_auc=1.0, accuracy=0.75)
    text = write(tmp_path, classification=few)
    assert "Accuracy over 4 simulated test subjects: 0.500 for model, 0.750 for simple statistics; **fewer " in text
    assert "| level | predictor | accuracy | balanced accuracy | n | n per class |" in text
    assert "No ROC-AUC with fewer than 3 subjects of a class." in text and "1.000" not in text
    assert "AUC not defined" in subjects_figure(few).axes[0].get_title()


def test_animals_that_training_has_seen_are_named_before_any_score(tmp_path):
    seen = write(tmp_path, seen=["m1", "m2"])
    assert seen.index("**Tested although seen in training: m1, m2. What follows is no test on new") < seen.index("## ")
    assert "Tested although" not in write(tmp_path / "none")


def test_channels_that_nothing_was_hidden_of_have_no_rows(tmp_path):
    scores = reconstruction_scores()
    unscored = [row | {"channel": "near mean", "n": 0, "r2": float("nan")} for row in scores.rows]
    text = write(tmp_path, reconstruction=dataclasses.replace(scores, rows=scores.rows + unscored))
    assert "| own | model |" in text and "near mean" not in text


def test_what_is_not_given_is_left_out(tmp_path):
    text = write(tmp_path, classification=None, examples=None, split=None)
    assert "Groups" not in text and "Split" not in text and ".png" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["summary.md"]


def test_text_of_strangers_stays_text(tmp_path):
    hostile = "<script>alert(1)</script> | [x](http://y)\n# `c` \x1b[31m"
    text = write(tmp_path, split={"train": [hostile]}, title=hostile)
    assert not re.search(r"(?<!\\)[<\[`](?=script|x|c)", text) and "\x1b" not in text
    row = next(line for line in text.splitlines() if line.startswith("| train"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 4


def test_a_command_with_backticks_does_not_end_its_block(tmp_path):
    assert "````\nneurt ```\n````" in write(tmp_path, command="neurt ```")


def test_the_figure_of_windows_has_seconds_shades_and_both_predictions():
    figure = reconstruction_figure([example(), example(None)], simulated=False)
    in_seconds, in_frames = figure.axes
    assert (in_seconds.get_xlabel(), in_frames.get_xlabel()) == ("time (s)", "frame")
    truth, interpolation, model = in_seconds.lines
    assert truth.get_xdata()[-1] == pytest.approx(39 / 5)
    assert np.flatnonzero(~np.isnan(model.get_ydata())).tolist() == [0, 10, 11, 12, 39]
    assert interpolation.get_linestyle() != model.get_linestyle()
    assert interpolation.get_marker() != model.get_marker()
    spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in in_seconds.patches]
    assert np.array(spans) == pytest.approx(np.array([[-0.1, 0.1], [1.9, 2.5], [7.7, 7.9]]))


def test_the_figure_of_subjects_shows_each_one_with_its_group():
    panel = subjects_figure(classification_scores()).axes[0]
    groups = [line for line in panel.lines if line.get_marker() in "os"]
    assert [sorted(line.get_ydata()) for line in groups] == [[-1.5, 0.5, 2.5], [-0.5, 1.5, 3.5]]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["wild type\nn = 3", "5xFAD\nn = 3"]
    assert panel.get_ylabel() == "Mean log-odds of 5xFAD"
    assert panel.get_title() == "6 simulated subjects: AUC 0.75, accuracy 0.50"


def test_three_groups_show_margins_and_a_missing_auc_is_said():
    panel = subjects_figure(classification_scores(("a", "b", "$c$"), auc=float("nan"))).axes[0]
    assert "own class" in panel.get_ylabel()
    assert "AUC not defined" in panel.get_title()
    assert panel.get_xticklabels()[2].get_text() == "\\$c\\$\nn = 3"


def test_figures_are_the_same_bytes_each_time_and_are_images(tmp_path):
    write(tmp_path / "one")
    write(tmp_path / "two")
    for name in ("reconstruction.png", "subjects.png"):
        first, second = (tmp_path / folder / name for folder in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()
        assert matplotlib.image.imread(first).std() > 0.01


def test_a_failure_leaves_the_old_files_and_no_partial_one(tmp_path, monkeypatch):
    write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        write(tmp_path, examples=[example()])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
