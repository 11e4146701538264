"""Which options of the architecture pay: each trained alike on the simulated corpus, scored on real recordings.

    python benchmarks/architecture_trials.py [--steps 400] [--output benchmarks/results/architecture_trials.md]

Every variant starts from the same seed and sees the same windows with the same frames hidden in the same order, on the
same number of steps. None is trained on a real recording, but the options were chosen by these scores. Scores are
squared errors over those of linear interpolation on the same hidden frames (spans of 1 to 10, and forecasts, where it
repeats the last value). Whole channels are compared with the mean of what was hidden, which no model is told.

The last two variants are not options of the model, as they did not pay: an embedding that tells the model the task, as
MtM has (Zhang et al. 2024, arXiv 2407.14668), and an exponential average of the weights.
"""

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurement import (
    digest_of,
    limit_threads,
    machine,
    markdown_table,
    publish,
    recordings_digest,
    save_found,
)
from neurt.configuration_neurt import NeurtConfig
from neurt.dataset_scripts.simulate_corpus import CorpusConfig, simulate_corpus
from neurt.dataset_scripts.windows import WindowDataset, cut_windows
from neurt.evaluation import linear_interpolation, shown_values
from neurt.forecasting import cut_forecast_windows
from neurt.masking import MASK_TASKS, PRETRAINING_TASKS, MaskedSignalCollator, model_inputs
from neurt.modeling_neurt import NeurtForMaskedSignalModeling
from neurt.processing_neurt import CHANNELS, NeurtProcessor
from neurt.sampling import evenly_spaced
from real_sets import SETS, real_sets
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import get_cosine_schedule_with_warmup, set_seed

OTHER_TASKS = ("neuron", "population", "forecast")
FRAMES, BATCH_SIZE = 128, 32
LEARNING_RATE = 1e-3
RECORDINGS_PER_SET, WINDOWS_PER_SET = 24, 384
ORIGINAL, DEFAULT = NeurtConfig.original(), NeurtConfig()
STEPS = (
    ("original", {}),
    ("+ mask indicator", {"use_mask_indicator": True}),
    ("+ linear filling", {"fill": "linear"}),
    ("+ standardised windows", {"standardize_windows": True}),
    ("+ correction", {"predict_correction": True}),
    ("+ relative loss", {"relative_loss": True}),
    ("+ sampling rate", {"use_sampling_rate": True}),
    ("+ norm first", {"norm_first": True}),
    ("+ rotary positions", {"position_embedding_type": "rotary"}),
    ("+ input convolution", {"input_kernel_size": 9}),
)
BRANCHES = (
    ("without mask indicator", {"use_mask_indicator": False}),
    ("without correction", {"predict_correction": False}),
    ("without relative loss", {"relative_loss": False}),
    ("without sampling rate", {"use_sampling_rate": False}),
    ("norm last", {"norm_first": False}),
    ("learned positions", {"position_embedding_type": "learned"}),
    ("convolution over 17 frames", {"input_kernel_size": 17}),
    ("GELU", {"hidden_act": "gelu"}),
)


EMA_DECAY = 0.99


class ToldTheTask(NeurtForMaskedSignalModeling):
    """Adds a learned vector of the window's task to every embedded frame; `tasks` (B,) is set before each call."""

    def __init__(self, config: NeurtConfig):
        super().__init__(config)
        self.task_embedding = nn.Embedding(len(MASK_TASKS), config.hidden_size)
        nn.init.zeros_(self.task_embedding.weight)
        self.tasks = None
        self.neurt.embeddings.register_forward_hook(self._tell)

    def _tell(self, module: nn.Module, inputs: tuple, embedded: torch.Tensor) -> torch.Tensor:
        return embedded + self.task_embedding(self.tasks).unsqueeze(1)


@dataclasses.dataclass(frozen=True)
class Variant:
    """What is trained: settings of the configuration, a class, and whether its weights are averaged."""

    settings: dict[str, Any]
    model: type[NeurtForMaskedSignalModeling] = NeurtForMaskedSignalModeling
    averaged: bool = False


def variants() -> dict[str, Variant]:
    """The steps add up to the default; each of the others changes one thing of it."""
    settings = {name: value for name, value in vars(ORIGINAL).items() if value != getattr(DEFAULT, name)}
    chosen = {}
    for name, step in STEPS:
        settings = {**settings, **step}
        chosen[name] = Variant(settings)
    chosen |= {f"all, {name}": Variant({**settings, **branch}) for name, branch in BRANCHES}
    chosen["all, told the task"] = Variant(settings, model=ToldTheTask)
    chosen["all, averaged weights"] = Variant(settings, averaged=True)
    return chosen


def training_batches(steps: int, seed: int, tasks: dict[str, float]) -> list[dict[str, torch.Tensor]]:
    """Batches of the corpus, in order; every recording gives about as many windows."""
    rng = np.random.default_rng(seed)
    dataset = WindowDataset(simulate_corpus(CorpusConfig(recordings=max(steps // 2, 40), seed=seed)), NeurtProcessor())
    collate = MaskedSignalCollator(seed, tasks=tasks)
    draws = rng.choice(len(dataset), (steps, BATCH_SIZE), replace=steps * BATCH_SIZE > len(dataset))
    return [collate([dataset[int(i)] for i in draw]) for draw in draws]


def real_batches(seed: int, tasks: dict[str, float]) -> dict[str, list[dict[str, torch.Tensor]]]:
    """Some windows of every real set, spread over its recordings."""
    batches = {}
    for name, read in real_sets().items():
        recordings = read()
        some = evenly_spaced(len(recordings), RECORDINGS_PER_SET)
        has_positions = recordings[0].centroids is not None
        dataset = WindowDataset(
            [recordings[i] for i in some],
            NeurtProcessor(),
            missing_neighbours="error" if has_positions else "mask",
            cut=cut_forecast_windows if "forecast" in tasks else cut_windows,
        )
        rows = evenly_spaced(len(dataset), WINDOWS_PER_SET)
        collate = MaskedSignalCollator(seed, tasks=tasks)
        if has_positions or "span" in tasks or "forecast" in tasks:
            batches[name] = [collate([dataset[int(i)] for i in part]) for part in np.array_split(rows, 3)]
    return batches


def predict(model: NeurtForMaskedSignalModeling, batch: dict[str, Any], **inputs: torch.Tensor):
    """The model's output for a batch."""
    if isinstance(model, ToldTheTask):
        model.tasks = torch.tensor([MASK_TASKS.index(task) for task in batch["mask_task"]])
    return model(**model_inputs(batch, "cpu"), **inputs)


def train(variant: Variant, batches: Sequence[dict[str, torch.Tensor]], seed: int):
    """A model trained on batches in order."""
    set_seed(seed)
    model = variant.model(NeurtConfig(**variant.settings)).train()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY)) if variant.averaged else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, len(batches) // 20, len(batches))
    for batch in batches:
        loss = predict(model, batch, labels=batch["labels"]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if average is not None:
            average.update_parameters(model)
    trained = model if average is None else average.module
    return trained.eval()


@torch.inference_mode()
def squared_errors(model: NeurtForMaskedSignalModeling, batches: Sequence[dict]) -> dict[str, np.ndarray]:
    """Summed squared errors (C,) of the model, of interpolation and of the window's own mean over what was hidden."""
    sums = {name: np.zeros(len(CHANNELS)) for name in ("model", "interpolation", "mean")}
    for batch in batches:
        truth = batch["labels"]
        scored = model.scored_positions(truth, batch["attention_mask"], batch["bool_masked_pos"])
        count = scored.sum(1, keepdim=True).clamp(min=1)
        guesses = {
            "model": predict(model, batch).reconstruction,
            "interpolation": torch.from_numpy(linear_interpolation(shown_values(batch))),
            "mean": torch.where(scored, truth, 0.0).sum(1, keepdim=True) / count,
        }
        for name, guess in guesses.items():
            sums[name] += torch.where(scored, guess - truth, 0.0).square().sum((0, 1)).numpy()
    return sums


def scores(model: NeurtForMaskedSignalModeling, real: dict[str, dict[str, list]]) -> dict[str, Any]:
    """Squared errors by set and channel, over those of interpolation, or of the hidden mean for whole channels."""
    result = {}
    for task, sets in real.items():
        against = "interpolation" if task in ("span", "forecast") else "mean"
        for name, batches in sets.items():
            sums = squared_errors(model, batches)
            there = sums[against] > 0
            result[f"{task} {name}"] = (sums["model"][there] / sums[against][there]).tolist()
    return result


def summary_row(name: str, result: dict[str, Any]) -> list[str]:
    span = {key.removeprefix("span "): ratios for key, ratios in result["scores"].items() if key.startswith("span ")}
    mean = math.exp(np.mean([np.mean(np.log(ratios)) for ratios in span.values()]))
    own = [f"{span[key][0]:.3f}" for key in SETS]
    tasks = []
    for task in OTHER_TASKS:
        values = [np.mean(np.log(v)) for key, v in result["scores"].items() if v and key.startswith(f"{task} ")]
        tasks.append(f"{math.exp(np.mean(values)):.3f}")
    return [name, f"{mean:.3f}", *own, *tasks]


def trials_table(found: dict[str, Any]) -> str:
    """A row for each variant, from what `main` saves."""
    header = ["variant", "all sets", *SETS, *OTHER_TASKS]
    return markdown_table(header, [summary_row(name, result) for name, result in found["variants"].items()])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="Markdown file to save, with a .json file beside it")
    arguments = parser.parse_args()
    limit_threads()
    found = {"steps": arguments.steps, "seed": arguments.seed, "machine": machine(), "variants": {}}
    batches = training_batches(arguments.steps, arguments.seed, PRETRAINING_TASKS)
    real = {task: real_batches(arguments.seed, {task: 1}) for task in ("span", *OTHER_TASKS)}
    for name, variant in variants().items():
        result = {"scores": scores(train(variant, batches, arguments.seed), real)}
        found["variants"][name] = result
        print(" | ".join(summary_row(name, result)), flush=True)
    said = f"{arguments.steps} steps of {BATCH_SIZE} windows, seed {arguments.seed}.\n{machine()}."
    publish(f"{said}\n\n{trials_table(found)}", arguments.output)
    if arguments.output:
        scored = digest_of({name: recordings_digest(read()) for name, read in real_sets().items()})
        save_found(found, arguments.output, model=None, seed=arguments.seed, simulated=False, data_sha256=scored)


if __name__ == "__main__":
    main()
