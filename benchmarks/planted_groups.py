"""Do planted groups come apart on held-out mice, and do groups that do not differ stay at chance? Simulated mice only.

    python benchmarks/planted_groups.py [--seeds 20] [--model FOLDER] [--output benchmarks/results/planted_groups.md]

1. Planted: mice in two groups, one of them hyperactive. A model pretrained by this script on other simulated mice (or
   the one in --model) is fine-tuned whole and tested on held-out mice.
2. Null: the same with nothing planted, an encoder that stays frozen, and new mice for each seed. Over the seeds the
   mean AUC must lie around 0.5; if not, the split, the training or the scores let something through.

Both stand beside simple statistics in a linear model, for the same held-out mice. Every step is what `neurt pretrain`
and `neurt finetune` do.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurement import markdown_table, publish
from neurt import train
from neurt.baselines import SIMPLE_STATISTICS
from neurt.dataset_scripts.parquet_build import write_build
from neurt.dataset_scripts.simulate import simulate_study
from neurt.dataset_scripts.simulation_config import SimulationConfig
from neurt.evaluation import MODEL

PREDICTORS = (MODEL, SIMPLE_STATISTICS)
FIELD = {"neurons": 15, "duration": 200.0}
PRETRAINING = {"subjects_per_group": 8, "effect_size": 0.0}
PLANTED = {"subjects_per_group": 10, "effect_size": 4.0, "effect_share": 0.8}
NULL = {"subjects_per_group": 8, "effect_size": 0.0}
PLANTED_STUDIES = 3
HELD_OUT = {"planted": 0.3, "null": 0.5}
# Far from the seeds of the studies, so that no mouse of theirs is drawn like one that was pretrained on.
PRETRAINING_SEED = 10_000


def write_mice(folder: Path, name: str, **settings) -> Path:
    """Simulate a study into a build; its ids carry its name, so that no two studies share an animal."""
    config = SimulationConfig(**{**FIELD, **settings})
    recordings, _ = simulate_study(config)
    renamed = (
        dataclasses.replace(
            recording,
            **{key: f"{name}-{getattr(recording, key)}" for key in ("recording_id", "session_id", "subject_id")},
        )
        for recording in recordings
    )
    parameters = {"simulated": True, **dataclasses.asdict(config)}
    return write_build(renamed, folder / name, builder="benchmarks/planted_groups.py", parameters=parameters).folder


def pretrain(folder: Path) -> Path:
    """Pretrain a small while on simulated mice with nothing planted; the folder of the model."""
    build = write_mice(folder, "pretraining", seed=PRETRAINING_SEED, **PRETRAINING)
    train.pretrain(
        build,
        folder / "pretrained",
        split=train.SplitOptions(test_fraction=0.1),
        options=train.TrainingOptions(epochs=4),
    )
    return folder / "pretrained"


def held_out_scores(
    build: Path, model: Path, share: float, seed: int, epochs: int, **finetuning: Any
) -> dict[str, dict]:
    """Fine-tune on some mice and score the others: the subject-level row of each predictor."""
    results = train.finetune(
        build,
        build.with_name(f"{build.name}-classifier"),
        model=model,
        finetuning=train.FinetuneOptions("group", **finetuning),
        split=train.SplitOptions(test_fraction=share),
        options=train.TrainingOptions(epochs=epochs, learning_rate=1e-4, seed=seed),
    )
    if results["seen_in_training"]:
        raise ValueError(f"expected other mice than the model's own, got {', '.join(results['seen_in_training'])}")
    rows = results["classification"]["rows"]
    return {row["predictor"]: row for row in rows if row["level"] == "subject"}


def planted_scores(folder: Path, model: Path, seed: int) -> dict[str, dict]:
    """Scores on held-out mice of a study with a planted effect, the whole model fine-tuned."""
    build = write_mice(folder, f"planted{seed}", seed=seed, **PLANTED)
    return held_out_scores(build, model, HELD_OUT["planted"], seed, epochs=5)


def null_scores(folder: Path, model: Path, seed: int) -> dict[str, dict]:
    """Scores on held-out mice of a study with nothing planted, the encoder frozen."""
    build = write_mice(folder, f"null{seed}", seed=seed, **NULL)
    # A head that learnt nothing would be at chance whatever leaked, so this one learns fast.
    return held_out_scores(build, model, HELD_OUT["null"], seed, epochs=3, freeze="encoder", head_learning_rate=1e-2)


def standard_error(values: Sequence[float]) -> float:
    """Of the mean (ddof 1)."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def values_of(studies: Iterable[dict[str, dict]], predictor: str, measure: str) -> list[float]:
    """One value for each study."""
    return [scores[predictor][measure] for scores in studies]


def null_verdict(predictor: str, aucs: Sequence[float]) -> str:
    """Mean AUC, its standard error, and whether chance lies within two of them."""
    mean, error = float(np.mean(aucs)), standard_error(aucs)
    within = "lies" if abs(mean - 0.5) <= 2 * error else "does **not** lie"
    return (
        f"- Simulated, nothing planted, {predictor}: mean AUC {mean:.3f} ± {error:.3f} (standard error over "
        f"{len(aucs)} seeds); 0.5 {within} within two standard errors."
    )


def study_table(studies: dict[int, dict[str, dict]], measures: dict[str, str]) -> str:
    """A row for each study, the predictors side by side."""
    header = ["simulated study", "held-out mice"]
    header += [f"{title}, {predictor}" for title in measures.values() for predictor in PREDICTORS]
    rows = [
        [f"simulated, seed {seed}", str(scores[MODEL]["n"])]
        + [f"{scores[predictor][measure]:.3f}" for measure in measures for predictor in PREDICTORS]
        for seed, scores in studies.items()
    ]
    return markdown_table(header, rows)


def planted_means(predictor: str, studies: Sequence[dict[str, dict]]) -> str:
    accuracy, auc = (np.mean(values_of(studies, predictor, measure)) for measure in ("accuracy", "roc_auc"))
    mice = sum(values_of(studies, predictor, "n"))
    return (
        f"- Simulated, planted, {predictor}: subject accuracy {accuracy:.3f}, AUC {auc:.3f} (means over "
        f"{len(studies)} studies with {mice} held-out mice in all)."
    )


def report(planted: dict[int, dict], null: dict[int, dict], pretrained_on: str, cost: str) -> str:
    parts = [
        "# Planted groups (simulated)",
        f"Simulated mice only: {FIELD['neurons']} neurons for {FIELD['duration']:g} s each. {pretrained_on} "
        f"Whole run: {cost}.",
        "## Simulated mice with a planted effect",
        f"Simulated: {PLANTED['subjects_per_group']} mice a group; in the planted group "
        f"{PLANTED['effect_share']:.0%} of the neurons fire {1 + PLANTED['effect_size']:g} times as fast. The whole "
        "model is fine-tuned; held-out mice are scored.",
        "\n".join(planted_means(predictor, list(planted.values())) for predictor in PREDICTORS),
        study_table(planted, {"accuracy": "accuracy", "roc_auc": "AUC"}),
        "## Simulated mice with nothing planted",
        f"Simulated: {NULL['subjects_per_group']} mice a group, new ones for each seed; the encoder stays frozen; "
        "half of the mice are held out and scored.",
        "\n".join(null_verdict(name, values_of(null.values(), name, "roc_auc")) for name in PREDICTORS),
        study_table(null, {"roc_auc": "AUC"}),
    ]
    return "\n\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="studies with nothing planted, at least 2")
    parser.add_argument("--model", type=Path, help="folder of a pretrained model, instead of pretraining one")
    parser.add_argument("--output", type=Path, help="also save the report to this file")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error(f"expected at least 2 seeds, got {arguments.seeds}")
    start, start_on_cores = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model = arguments.model or pretrain(folder)
        planted = {seed: planted_scores(folder, model, seed) for seed in range(PLANTED_STUDIES)}
        null = {seed: null_scores(folder, model, seed) for seed in range(arguments.seeds)}
    mice = 2 * PRETRAINING["subjects_per_group"]
    pretrained_on = f"Pretrained on {mice} others." if arguments.model is None else f"Model: {arguments.model.name}."
    minutes, on_cores = (time.monotonic() - start) / 60, (time.process_time() - start_on_cores) / 60
    cost = (
        f"{minutes:.1f} minutes, {on_cores:.1f} of processor time; torch.get_num_threads() = {torch.get_num_threads()}"
    )
    publish(report(planted, null, pretrained_on, cost), arguments.output)


if __name__ == "__main__":
    main()
