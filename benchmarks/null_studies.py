"""Do studies of mice that do not differ find nothing? Simulated mice only.

    python benchmarks/null_studies.py --jobs 2 --output benchmarks/results/null_studies.md

A hundred small studies with nothing planted, seeds 0 to 99: the encoder stays frozen, and every predictor of
`neurt crossval` that is linear on its features is held against its own permutation test, on the folds that a study
uses by default. If nothing leaks, p < 0.05 comes out in about five studies, and the mean AUC is 0.5 within its error.

Killed, a run with `--output` goes on where it was. Beside the report is a figure of all p-values.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measurement import markdown_table, publish
from neurt.crossval.data import StudyOptions
from neurt.crossval.permutations import SIGNIFICANT
from neurt.crossval.protocol import cross_validate
from neurt.crossval.provenance import folds_digest
from neurt.crossval.study import open_study, predictors
from neurt.dataset_scripts.simulation_config import SimulationConfig
from neurt.summary import GROUP_COLOURS, new_figure, save_figure
from simulated_studies import (
    ERRORS,
    LABEL,
    SimulatedStudy,
    as_build,
    check_unseen,
    cost,
    mean_and_error,
    measure_all,
    parse_arguments,
    save_studies,
    standard_error,
    with_error,
)

SEEDS = 100
# Small, for a hundred of them: what is asked is whether the procedure is right, not how much it sees.
MICE = {"subjects_per_group": 6, "neurons": 15, "duration": 200.0, "effect_size": 0.0}
PERMUTATIONS, WINDOWS = 200, 32
# Of a hundred studies. With a probability of 0.05 each, more come out in one of a hundred such runs.
MOST_SIGNIFICANT = 10


def null_studies(seeds: int, model: Path) -> list[SimulatedStudy]:
    """Studies of other mice each, with nothing planted."""
    return [
        SimulatedStudy(
            name=f"null{seed}",
            config=SimulationConfig(**MICE, seed=seed),
            options=StudyOptions(LABEL, permutations=PERMUTATIONS, windows=WINDOWS, seed=seed),
            model=model,
        )
        for seed in range(seeds)
    ]


def null_scores(study: SimulatedStudy) -> dict[str, Any]:
    """AUC over held-out mice and p-value of each predictor."""
    with as_build(study) as build:
        opened = open_study(build, study.model, study.options)
    check_unseen(opened.seen)
    found = {}
    for predictor in predictors(opened):
        held = cross_validate(
            predictor,
            opened.cohort,
            opened.scheme,
            permutations=study.options.permutations,
            seed=study.options.seed,
        )
        found[predictor.name] = {"auc": held.score, "p_value": held.test.p_value}
    folds = folds_digest(opened.cohort, opened.scheme.make(opened.cohort))
    return {"predictors": found, "scheme": str(opened.scheme), "folds_sha256": folds}


def by_predictor(studies: Sequence[Mapping[str, Any]], measure: str) -> dict[str, np.ndarray]:
    """Values of a measure ("auc" or "p_value"), one for each study."""
    return {
        name: np.array([found["predictors"][name][measure] for found in studies]) for name in studies[0]["predictors"]
    }


def summary(studies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each predictor: the mean AUC, and how many studies have a small p-value."""
    aucs, p_values = by_predictor(studies, "auc"), by_predictor(studies, "p_value")
    return {
        name: {"auc": mean_and_error(values), "significant": int(np.sum(p_values[name] < SIGNIFICANT))}
        for name, values in aucs.items()
    }


def verdict(name: str, aucs: np.ndarray, p_values: np.ndarray) -> str:
    """How many studies found something, and whether chance lies within the error of the mean AUC."""
    significant = int(np.sum(p_values < SIGNIFICANT))
    most = MOST_SIGNIFICANT * len(p_values) // 100
    many = "at most" if significant <= most else "**more than**"
    within = "lies" if abs(aucs.mean() - 0.5) <= ERRORS * standard_error(aucs) else "does **not** lie"
    return (
        f"- {name}: p < {SIGNIFICANT:g} in {significant} of {len(p_values)} simulated studies, {many} {most}; "
        f"mean AUC {with_error(aucs)}, 0.5 {within} within two standard errors."
    )


def report(studies: Mapping[str, Mapping[str, Any]], figure: str | None) -> str:
    """The whole report, from what each study gave."""
    found = list(studies.values())
    aucs, p_values = by_predictor(found, "auc"), by_predictor(found, "p_value")
    header = ["predictor", "mean AUC ± standard error", "SD of AUC", "p < 0.05", "p < 0.2", "p < 0.5"]
    rows = [
        [name, with_error(values), f"{values.std(ddof=1):.3f}"]
        + [f"{np.mean(p_values[name] < level):.0%}" for level in (SIGNIFICANT, 0.2, 0.5)]
        for name, values in aucs.items()
    ]
    parts = [
        "# Studies of mice that do not differ (simulated)",
        "\n".join(verdict(name, values, p_values[name]) for name, values in aucs.items()),
        f"Simulated mice only, nothing planted, other mice in each study: {MICE['subjects_per_group']} a group, "
        f"{MICE['neurons']} neurons of each for {MICE['duration']:g} s. The encoder stays frozen and reads at most "
        f"{WINDOWS} windows of each recording. Held out by {found[0]['scheme']}; {PERMUTATIONS} labellings for each "
        f"p-value. {cost(studies)}",
        markdown_table(header, rows),
        *([f"![p-values]({figure})"] if figure else []),
    ]
    return "\n\n".join(parts)


def draw_p_values(p_values: Mapping[str, np.ndarray], path: Path):
    """How many studies have which p-value, a panel for each predictor; without an effect all are as frequent."""
    figure = new_figure(2.8)
    panels = figure.subplots(1, len(p_values), sharey=True, squeeze=False)[0]
    for panel, (name, values), colour in zip(panels, p_values.items(), GROUP_COLOURS, strict=False):
        panel.hist(values, bins=np.linspace(0, 1, 21), color=colour)
        panel.axhline(len(values) / 20, color="black", lw=0.8, ls="--")
        panel.set_title(name, fontsize=8)
        panel.set_xlabel("p")
    panels[0].set_ylabel("studies")
    figure.suptitle(f"Simulated: {len(values)} studies, nothing planted (dashed: expected)", fontsize=10)
    save_figure(figure, path)


def main():
    arguments = parse_arguments(__doc__, SEEDS)
    output = arguments.output
    studies = null_studies(arguments.seeds, arguments.model)
    measured = measure_all(null_scores, studies, jobs=arguments.jobs, lines=output and output.with_suffix(".jsonl"))
    picture = output and output.with_suffix(".png")
    publish(report(measured, picture and picture.name), output)
    if picture:
        found = list(measured.values())
        draw_p_values(by_predictor(found, "p_value"), picture)
        save_studies(summary(found), studies, measured, output)


if __name__ == "__main__":
    main()
