"""The report of a study: the verdict first, then the baselines, the checks, every animal, and how to run it again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..markdown_text import code_block, escape_markdown, markdown_table
from .data import PROBE
from .figures import draw_calibration, draw_confounds, draw_roc, draw_subjects
from .folds import STRATIFIED
from .permutations import SIGNIFICANT
from .protocol import BALANCED_ACCURACY

LEVEL_COLUMNS = {
    "accuracy": "accuracy",
    "balanced_accuracy": BALANCED_ACCURACY,
    "roc_auc": "ROC-AUC, pooled",
    "mcc": "MCC",
    "brier": "Brier score",
    "calibration_in_the_large": "calibration in the large",
    "calibration_slope": "calibration slope",
}
WARN = "**Look at this first.**"


def write_report(results: Mapping[str, Any], folder: Path) -> None:
    """Write `report.md` and its figures.

    Args:
        results: As `crossval` makes them.
        folder: Where to.
    """
    figures = _draw(results, folder)
    parts = [
        "# Groups of animals",
        verdict(results),
        *(["**Simulated recordings are among these.**"] if results["simulated"] else []),
        *warnings(results),
        "## Who was told apart",
        _who(results),
        "## Beside its baselines, on the same folds",
        _predictor_table(results),
        power(results),
        *(["## Levels", _level_table(results["levels"]), _level_note(results)] if results["levels"] else []),
        "## Leaks",
        *_leaks(results),
        "## Are these recordings like those of the pretraining?",
        *_distribution(results),
        "## What else differs between the groups",
        _confound_table(results["checks"]["confounds"], results["class_names"]),
        *(f"![{title}]({name})" for name, title in figures.items()),
        "## Every animal",
        _subject_table(results),
        "## Run it again",
        code_block(results["command"]),
        _provenance(results["provenance"]),
    ]
    (folder / "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


# Measured, see `protocol.score_name` and the tests.
LEAVE_ONE_OUT = (
    "Where there is nothing to find, leave-one-out is right less often than by chance, so the p-value alone, not the "
    "distance from chance, says how good that is."
)
AGAINST_THE_REST = (
    "This AUC is the mean over classes of each against all others; the score above is over pairs of classes."
)
TEMPERATURES = "Temperatures were fitted to animals held out of each training fold, and are 1 where those are too few."
UNEVEN = "Where classes do not divide evenly into the folds, pooling puts it below 0.5 if there is nothing to find."


def verdict(results: Mapping[str, Any]) -> str:
    """One paragraph: score, interval, p-value, and whether a baseline is as good."""
    (name, probe), *others = results["predictors"].items()
    kind = "simulated " if results["simulated"] else ""
    said = f"{name}: {results['score_name']} {_with_interval(probe)} over {len(results['subjects'])} {kind}subjects"
    said += f", {_p(probe)}." if "p_value" in probe else "; no permutation test was asked for."
    decided = results["score_name"] == BALANCED_ACCURACY
    if decided:
        said += f" {LEAVE_ONE_OUT}"
    if probe.get("p_value", 0) >= SIGNIFICANT:
        said += " That is no evidence that it can tell them, whatever the bootstrap interval of so few animals says."
    if probe["score"] == 1:
        right = "subject is on its side" if decided else "pair of subjects is in order"
        said += f" Every {right}; the bootstrap cannot show how uncertain that is."
    unbeaten = [other for other, row in others if row["probe_is_better_by"] <= 0]
    unsure = [other for other, row in others if row["probe_is_better_by"] > 0 >= row["difference_interval"][0]]
    if unbeaten:
        plain = "" if PROBE in unbeaten else ", without a neural network"
        said += f" **{' and '.join(unbeaten)} did as well or better{plain}.**"
    elif unsure:
        said += f" It scores higher than {' and '.join(unsure)}, but the difference may be chance."
    else:
        said += " It is better than each baseline."
    return said


def warnings(results: Mapping[str, Any]) -> list[str]:
    """What a reader must know before believing the verdict."""
    checks, found = results["checks"], []
    if checks["seen_in_pretraining"]:
        names = ", ".join(escape_markdown(name) for name in checks["seen_in_pretraining"])
        found.append(f"{WARN} Pretraining has seen {names}: this is no test on new animals.")
    if checks["sessions_as_subjects"]:
        found.append(
            f"{WARN} Subjects are named like their sessions, as where none was stated: if an animal was recorded more "
            "than once, these are not animals, and scores and p-values are too good. State them and import again."
        )
    compared = checks["distribution"].get("recordings", {})
    foreign = sum(row["outside"] for row in compared.values())
    if foreign:
        chance = checks["distribution"]["expected_outside"] * len(compared)
        used = "left out" if results["options"]["abstain"] else "used all the same"
        found.append(
            f"{WARN} {foreign} of {len(compared)} recordings are unlike those of the pretraining (by chance: "
            f"{chance:.1f}), and {used}: see below."
        )
    suspects = [row["name"] for row in checks["confounds"] if row["suspicious"]]
    if suspects:
        found.append(f"{WARN} The groups also differ in {', '.join(suspects)}: see below before speaking of biology.")
    return found


def power(results: Mapping[str, Any]) -> str:
    """How small p can become, and of whom less so, such as a model that is fine-tuned for each labelling."""
    smallest = {name: row["smallest_p"] for name, row in results["predictors"].items() if "smallest_p" in row}
    larger = {name: value for name, value in smallest.items() if value > min(smallest.values())}
    said = (f" That of {name}, for fewer labellings, cannot be below {value:.2g}." for name, value in larger.items())
    return results["checks"]["power"] + "".join(said)


def _draw(results: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Figures that make sense here: title by file name."""
    drawn = {"confounds.png": "What separates the groups alone"} if results["checks"]["confounds"] else {}
    drawn["subjects.png"] = "Scores of held-out animals"
    if len(results["class_names"]) == 2:
        drawn |= {} if results["score_name"] == BALANCED_ACCURACY else {"roc.png": "ROC curves"}
        drawn["calibration.png"] = "Calibration"
    for name in drawn:
        _DRAW[name](results, folder / name)
    return drawn


_DRAW = {
    "confounds.png": draw_confounds,
    "subjects.png": draw_subjects,
    "roc.png": draw_roc,
    "calibration.png": draw_calibration,
}


def _who(results: Mapping[str, Any]) -> str:
    names, targets = results["class_names"], list(results["subjects"].values())
    groups = ", ".join(f"{targets.count(place)} {escape_markdown(name)}" for place, name in enumerate(names))
    who = groups or f"{len(targets)} animals, {min(targets):g} to {max(targets):g}"
    said = (
        f"Subjects: {who}; recordings: {results['num_recordings']}; windows: {results['num_windows']}. Held out by "
        f"{results['options']['scheme']}."
    )
    skipped = results["skipped"]
    if skipped:
        name, why = next(iter(skipped.items()))
        said += f" Recordings without windows: {len(skipped)} ({escape_markdown(name)}: {escape_markdown(why)})."
    return said


def _predictor_table(results: Mapping[str, Any]) -> str:
    rows = []
    for name, row in results["predictors"].items():
        better = ""
        if "probe_is_better_by" in row:
            low, high = row["difference_interval"]
            better = f"{row['probe_is_better_by']:+.3f} [{low:+.3f}, {high:+.3f}]"
        rows.append([name, _with_interval(row), _p(row) if "p_value" in row else "", better])
    return markdown_table(["predictor", results["score_name"], "permutation test", "NEuRT is better by"], rows)


def _level_table(levels: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [[level, str(row["n"]), *(_number(row[key]) for key in LEVEL_COLUMNS)] for level, row in levels.items()]
    return markdown_table(["level", "n", *LEVEL_COLUMNS.values()], rows)


def _level_note(results: Mapping[str, Any]) -> str:
    if results["score_name"] == BALANCED_ACCURACY:
        said = ["Of the one fold that held each animal out. Scores of different models may not be ranked: no AUC."]
    else:
        said = ["Means over the folds that held each animal out. The AUC of this table pools folds; the score above"]
        said.append("compares animals within folds alone.")
        said += [UNEVEN] if STRATIFIED in results["options"]["scheme"] else []
        said += [AGAINST_THE_REST] if len(results["class_names"]) > 2 else []
    return " ".join([*said, TEMPERATURES])


def _leaks(results: Mapping[str, Any]) -> list[str]:
    split, measure = results["checks"]["window_split"], "ROC-AUC" if results["class_names"] else "concordance index"
    said = [
        "No animal, recording or data stands on both sides of a fold.",
        f"Had single windows been dealt out at random, so that each animal stands on both sides, windows would have "
        f"been told apart with a {measure} of {split['random_windows']:.2f}; with whole animals held out it is "
        f"{split['whole_animals']:.2f} (same learner, {split['num_windows']} windows, {split['num_folds']} folds).",
    ]
    for row in results["checks"]["identity"]:
        if row["subjects"] > 1:
            said.append(
                f"Within {escape_markdown(row['group'])}, single windows tell which of {row['subjects']} animals they "
                f"are of with a balanced accuracy of {_number(row['balanced_accuracy'])} (chance {row['chance']:.2f}; "
                f"learnt from other {row['split_by']})."
            )
    return said


def _distribution(results: Mapping[str, Any]) -> list[str]:
    """Which recordings are outside of the pretraining's, by how well the model reconstructs them."""
    found = results["checks"]["distribution"]
    if "not_measured" in found:
        return [f"Not measured: {found['not_measured']}."]
    rows = found["recordings"]
    foreign = {name: row for name, row in rows.items() if row["outside"]}
    said = [
        "The model's error in hidden spans of each recording, relative to that of straight lines, was placed among "
        f"those of {_reference(found['measured_on'])}. Outside of their central {found['level']:.0%} lie "
        f"{len(foreign)} of {len(rows)}. Were each just like those, {found['expected_outside']:.1%} of them would lie "
        "outside all the same, by chance. What is foreign but filled as well as those is not found.",
    ]
    if foreign:
        said.append(_foreign_table(foreign))
    if foreign and results["options"]["abstain"]:
        animals = sorted({row["subject_id"] for row in rows.values()} - results["subjects"].keys())
        gone = f", and with them {', '.join(map(escape_markdown, animals))}" if animals else ""
        said.append(f"They were left out of the study before anything was fitted{gone}.")
    return said


def _reference(measured_on: Mapping[str, Any]) -> str:
    """Which recordings the others are compared with, as `measure_reference` tells it."""
    sides = {"held out": "held_out_recordings", "trained on": "training_recordings"}
    numbers = {verb: measured_on.get(name) for verb, name in sides.items()}
    said = " and ".join(f"{verb} ({number})" for verb, number in numbers.items() if number)
    kind = "simulated " if measured_on.get("simulated") else ""
    return f"the {kind}recordings that its pretraining {said or 'met'}"


def _foreign_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    header = ["recording outside", "subject", "share of the pretraining's errors below its own"]
    cells = (
        [escape_markdown(name), escape_markdown(row["subject_id"]), _number(row["percentile"])]
        for name, row in rows.items()
    )
    return markdown_table(header, cells)


def _confound_table(rows: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> str:
    if not rows:
        return "Nothing that was measured of the recordings differs between subjects."
    groups = list(class_names) or ["all"]
    table = [
        [
            f"**{row['name']}**" if row["suspicious"] else row["name"],
            *(_typical(row["typical"][group], row["unit"]) for group in groups),
            f"{row['separation']:.2f}",
            f"{row['p_value']:.3g}",
            f"{row['adjusted_p']:.3g}",
        ]
        for row in rows
    ]
    header = ["property", *map(escape_markdown, groups), "separates alone (0.5 to 1)", "p", "p, Holm"]
    return markdown_table(header, table)


def _typical(value: float | str | None, unit: str) -> str:
    if isinstance(value, str):
        return escape_markdown(value)
    return f"{_number(value)} {unit}".strip()


def _subject_table(results: Mapping[str, Any]) -> str:
    names, probe = results["class_names"], next(iter(results["predictors"].values()))
    rows = []
    for (subject, target), score in zip(results["subjects"].items(), probe["subjects"], strict=True):
        truth = escape_markdown(names[target]) if names else f"{target:g}"
        score = np.atleast_1d(score)
        scores = [f"{value:+.2f}" for value in (score[1:] if len(score) > 1 else score)]
        rows.append([escape_markdown(subject), truth, *scores])
    said = [f"log-odds of {escape_markdown(name)} against {escape_markdown(names[0])}" for name in names[1:]]
    return markdown_table(["subject", "group" if names else "value", *(said or ["predicted"])], rows)


def _provenance(made_of: Mapping[str, Any]) -> str:
    digests = (f"{name} {made_of[f'{name}_sha256'][:12]}" for name in ("build", "weights", "folds"))
    versions = (f"{name} {version}" for name, version in made_of["versions"].items())
    return f"SHA-256: {', '.join(digests)} (whole in `results.json`). {', '.join(versions)}."


def _with_interval(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{row['score']:.3f} [{low:.3f}, {high:.3f}]"


def _p(row: Mapping[str, Any]) -> str:
    return f"p = {row['p_value']:.3g} ({'exact' if row['exact'] else 'random labellings'})"


def _number(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.3g}"
