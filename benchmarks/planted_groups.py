"""Are groups of mice told apart by what was planted in one, and better by a frozen model or by its baselines?

    python benchmarks/planted_groups.py --jobs 2 --output benchmarks/results/planted_groups.md

Simulated mice only. Each study is what `neurt crossval` makes of them, all predictors on the same folds:

1. hyperactivity: some neurons of one group fire more;
2. variability: they vary more around the same mean;
3. synchrony: near neighbours share more of their activity, while each single trace keeps its law. Asked a second time
   with the positions of the neurons withheld, so that no neighbour channels can be made;
4. signature: the groups do not differ, but mice do, much. Windows that are dealt out at random then tell groups apart,
   for they are recognised by their mice; whole animals that are held out do not.

How large the effects are was chosen so that the baselines neither fail nor succeed always; the model was not looked
at. Killed, a run with `--output` goes on where it was.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measurement import markdown_table
from neurt.baselines import SIMPLE_STATISTICS
from neurt.crossval.data import StudyOptions
from neurt.crossval.permutations import SIGNIFICANT
from neurt.crossval.report import verdict
from neurt.crossval.study import PROBE, crossval
from neurt.dataset_scripts.simulation_config import SimulationConfig
from simulated_studies import (
    ERRORS,
    LABEL,
    SimulatedStudy,
    as_build,
    check_unseen,
    mean_and_error,
    measure_kinds,
    standard_error,
    with_error,
)

SEEDS = 5
MICE = {"subjects_per_group": 10, "neurons": 30, "duration": 200.0}
PERMUTATIONS = 200
WITHHELD, SIGNATURE = "synchrony, positions withheld", "signature"
SYNCHRONY = {"effect": "synchrony", "effect_size": 9.0, "effect_share": 1.0, "neuropil": 0.0, "shared_drive": 0.0}
KINDS = {
    "hyperactivity": {"effect": "hyperactivity", "effect_size": 2.0},
    "variability": {"effect": "variability", "effect_size": 1.0},
    "synchrony": SYNCHRONY,
    WITHHELD: SYNCHRONY,
    # Of few mice, so that windows of each are many enough to learn it by heart.
    SIGNATURE: {"effect_size": 0.0, "mouse_spread": 1.0, "subjects_per_group": 5},
}
# Few mice tell little, so there are more of these studies.
SIGNATURES = 3
PLANTED = {
    "hyperactivity": "in the planted group half of the neurons fire {factor:g} times as fast",
    "variability": "in the planted group the rates of half of the neurons vary {factor:g} times as much, in the "
    "logarithm, around the same means",
    "synchrony": "in the planted group {shared:.0%} of the variance of each neuron's drive is shared with near "
    "neighbours, in the control group nothing; single traces follow the same law in both",
}

# What the studies of one kind gave, by seed.
Found = Sequence[Mapping[str, Any]]


def planted_studies(seeds: int, model: Path) -> dict[str, list[SimulatedStudy]]:
    """The studies of each kind. Those with and without positions are of the same mice."""
    return {
        kind: [
            SimulatedStudy(
                name=f"{kind.replace(', ', '-').replace(' ', '-')}{seed}",
                config=SimulationConfig(**{**MICE, **planted}, seed=seed),
                options=StudyOptions(
                    LABEL,
                    permutations=PERMUTATIONS,
                    missing_neighbours="mask" if kind == WITHHELD else "error",
                    seed=seed,
                ),
                model=model,
                positions=kind != WITHHELD,
            )
            for seed in range(seeds * (SIGNATURES if kind == SIGNATURE else 1))
        ]
        for kind, planted in KINDS.items()
    }


def study_results(study: SimulatedStudy) -> dict[str, Any]:
    """What `neurt crossval` says of a study, as far as it is reported here."""
    with as_build(study) as build:
        results = crossval(build, build.with_name("study"), model=study.model, options=study.options)
    checks = results["checks"]
    check_unseen(checks["seen_in_pretraining"])
    kept = ("score", "interval", "p_value")
    return {
        "verdict": verdict(results),
        "predictors": {name: {key: row[key] for key in kept} for name, row in results["predictors"].items()},
        "window_split": checks["window_split"],
        "identity": checks["identity"],
        "folds_sha256": results["provenance"]["folds_sha256"],
    }


def scores(found: Found) -> dict[str, np.ndarray]:
    """AUC over mice of each predictor, one for each study."""
    return {name: np.array([each["predictors"][name]["score"] for each in found]) for name in found[0]["predictors"]}


def summary(found: Mapping[str, Found]) -> dict[str, Any]:
    """Of each kind: mean AUCs over studies, and for the signatures those of single windows, split in two ways."""
    kinds = {
        kind: {name: {"auc": mean_and_error(values)} for name, values in scores(studies).items()}
        for kind, studies in found.items()
    }
    splits = [each["window_split"] for each in found[SIGNATURE]]
    windows = {key: mean_and_error([split[key] for split in splits]) for key in ("random_windows", "whole_animals")}
    return {"mice": MICE, "kinds": kinds, "windows_of_signatures": windows}


def ranked(aucs: Mapping[str, np.ndarray]) -> list[str]:
    """Predictors by their mean AUC, the best first."""
    return sorted(aucs, key=lambda name: -aucs[name].mean())


def best_of(aucs: Mapping[str, np.ndarray]) -> str:
    """Say who is best, and by how much NEuRT is better or worse than the best of the others."""
    best, second = ranked(aucs)[:2]
    rival = best if best != PROBE else second
    return (
        f"Highest mean AUC: **{best}**, {with_error(aucs[best])}. {PROBE}, less {rival}: "
        f"{with_error(aucs[PROBE] - aucs[rival], '+')} (paired over studies)."
    )


def predictor_table(found: Found, suffix: str = "") -> list[list[str]]:
    """A row for each predictor: mean AUC, in how many studies p < 0.05, and every study."""
    rows = []
    for name, values in scores(found).items():
        of_studies = [each["predictors"][name] for each in found]
        significant = sum(row["p_value"] < SIGNIFICANT for row in of_studies)
        rows.append([name + suffix, with_error(values), str(significant), *map(score_cell, of_studies)])
    return rows


def score_cell(row: Mapping[str, Any]) -> str:
    """AUC, interval and p-value of one study."""
    low, high = row["interval"]
    return f"{row['score']:.2f} [{low:.2f}, {high:.2f}], p = {row['p_value']:.2g}"


def with_header(rows: Sequence[Sequence[str]]) -> str:
    """A table of predictors."""
    studies = [f"study {number}" for number in range(len(rows[0]) - 3)]
    return markdown_table(["predictor", "mean AUC ± standard error", "p < 0.05", *studies], rows)


def planted_section(kind: str, found: Found) -> list[str]:
    """What was planted, who found it, and what each study's report begins with."""
    config = SimulationConfig(**{**MICE, **KINDS[kind]})
    planted = PLANTED[kind].format(factor=config.effect_factor, shared=1 - config.effect_factor)
    return [
        f"## {kind.capitalize()} (simulated)",
        f"Simulated: {planted}.",
        best_of(scores(found)),
        with_header(predictor_table(found)),
        "\n".join(f"- Study {seed}: {each['verdict']}" for seed, each in enumerate(found)),
    ]


def neighbour_section(found: Found, withheld: Found) -> list[str]:
    """What the same mice give away without neighbour channels, and whether those win."""
    seeing, blind = scores(found), scores(withheld)
    # Simple statistics see single traces in either case.
    rivals = {f"{name}, neighbours withheld": values for name, values in blind.items() if name != SIMPLE_STATISTICS}
    rivals[SIMPLE_STATISTICS] = seeing.pop(SIMPLE_STATISTICS)
    first, rival = ranked(seeing)[0], ranked(rivals)[0]
    ahead = seeing[first] - rivals[rival]
    wins = "win" if ahead.mean() > ERRORS * standard_error(ahead) else "do **not** win beyond two standard errors"
    gains = [f"{with_error(values - blind[name], '+')} to {name}" for name, values in seeing.items() if name in blind]
    rows = [row for row in predictor_table(withheld, ", neighbours withheld") if SIMPLE_STATISTICS not in row[0]]
    return [
        "### The same mice, positions withheld",
        f"Neighbour channels {wins}: the best that sees them, {first}, is {with_error(ahead, '+')} better than the "
        f"best of all that see single traces, {rival}. They add {', '.join(gains)} (paired over studies).",
        with_header(rows),
    ]


def signature_section(found: Found) -> list[str]:
    """How good the groups that do not differ look by windows, and by animals."""
    splits = [each["window_split"] for each in found]
    dealt, held = (np.array([split[key] for split in splits]) for key in ("random_windows", "whole_animals"))
    config = SimulationConfig(**{**MICE, **KINDS[SIGNATURE]})
    header = ["study", "windows at random", "whole animals, windows", f"{PROBE}: AUC over mice", "mice told apart by"]
    rows = [
        [
            f"study {seed}",
            f"{each['window_split']['random_windows']:.2f}",
            f"{each['window_split']['whole_animals']:.2f}",
            score_cell(each["predictors"][PROBE]),
            ", ".join(f"{row['balanced_accuracy']:.2f} (chance {row['chance']:.2f})" for row in each["identity"]),
        ]
        for seed, each in enumerate(found)
    ]
    return [
        "## A signature of each mouse, and no difference between the groups (simulated)",
        f"Simulated: {config.subjects_per_group} mice a group; firing rate, amplitude, noise, coupling and decay time "
        f"differ between mice by a spread of {config.mouse_spread:g} of their logarithms, in both groups alike. The "
        f"AUC of single windows, dealt out at random so that each mouse stands on both sides, is {with_error(dealt)}; "
        f"with whole animals held out it is {with_error(held)}.",
        "AUC over held-out mice: "
        + "; ".join(f"{name} {with_error(values)}" for name, values in scores(found).items())
        + ".",
        markdown_table(header, rows),
        "The last column: balanced accuracy of single windows at telling the mice of a group apart, for each group.",
    ]


def report(found: Mapping[str, Found], costs: str) -> str:
    """The whole report, from what the studies of each kind gave."""
    sections = [
        planted_section("hyperactivity", found["hyperactivity"]),
        planted_section("variability", found["variability"]),
        planted_section("synchrony", found["synchrony"]),
        neighbour_section(found["synchrony"], found[WITHHELD]),
        signature_section(found[SIGNATURE]),
    ]
    about = (
        f"Simulated mice only: {MICE['subjects_per_group']} a group unless said otherwise, {MICE['neurons']} neurons "
        f"of each for {MICE['duration']:g} s. Every study is what `neurt crossval` makes of it: leave-pair-out, AUC "
        f"over mice with its 95 % bootstrap interval, p from {PERMUTATIONS} random labellings. Errors of means are "
        f"standard errors over studies of other mice. {costs}"
    )
    return "\n\n".join(["# Planted groups (simulated)", about, *sum(sections, [])])


def main():
    measure_kinds(__doc__, SEEDS, planted_studies, study_results, report, summary)


if __name__ == "__main__":
    main()
