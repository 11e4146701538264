"""The published classifier's pooling attention on real recordings: does it point at what the classifier needs?

    python benchmarks/published_explanations.py [--windows 36] [--seed 0] [--output FILE.md]

The classifier (wild-type against 5xFAD) is converted from the folder that `NEURT_PUBLISHED_CLASSIFIER` names, by
default `checkpoints/classifier` beside the folder of real recordings. None of these recordings has its labels, so its
accuracy is not measured here, only whether maps of its decisions are true of it: see `explain/faithfulness.py`. All
methods are tried on the same windows, beside the same controls. Sets of fewer than three animals, of which nothing
could be tested, are left out.
"""

import argparse
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurement import limit_threads, machine, markdown_table, publish
from neurt import NeurtForSequenceClassification, NeurtProcessor
from neurt.convert_checkpoint import build_model, read_options, read_state_dict
from neurt.dataset_scripts.recording import Recording
from neurt.dataset_scripts.windows import WindowDataset
from neurt.explain.attention import pooling_attention
from neurt.explain.curves import FEWEST_SUBJECTS
from neurt.explain.explained import ExplainedWindows, gather
from neurt.explain.faithfulness import RANDOM, RANDOM_WEIGHTS, TURNED, Verdict, judge, open_trial
from neurt.explain.methods import methods_for
from real_sets import real_data_folder, real_sets

CONTROLS = (RANDOM, TURNED, RANDOM_WEIGHTS)
HEADER = ("explanation", *(f"better than {name} by" for name in CONTROLS), "like random weights' map", "test")
TITLE = "# Explanations of the published classifier, judged on real recordings"
HOW = """\
Better: by how many log-odds of the class that the classifier decides on, averaged over 0 to 80 % of the frames hidden,
hiding the most important frames first takes more than the control does; mean over animals and 95 % interval over
animals (none with fewer than three). An explanation passes where every interval lies above 0 and its maps differ from
those of random weights (Spearman correlation, upper end at most 0.5). The effective number of frames is the
exponential of the entropy of the pooling weights: as many frames as the window has if all weigh the same. Sets of
fewer than three animals are left out: nothing could be tested there."""


def published_classifier() -> NeurtForSequenceClassification:
    """The original's classifier, converted.

    Raises:
        ValueError: If its folder does not hold one checkpoint.
    """
    default = real_data_folder().parent / "checkpoints" / "classifier"
    folder = Path(os.environ.get("NEURT_PUBLISHED_CLASSIFIER", default))
    checkpoints = sorted(folder.glob("*.pth"))
    if len(checkpoints) != 1:
        raise ValueError(f"expected one .pth file in {folder}, got {len(checkpoints)}")
    return build_model(read_state_dict(checkpoints[0]), read_options(folder / "model_cfg.json")).model.eval()


def sample(recordings: Sequence[Recording], processor: NeurtProcessor, most: int, seed: int) -> ExplainedWindows:
    """About `most` windows, spread over the recordings of a set; own traces alone where there are no positions."""
    dataset = WindowDataset(recordings, processor, missing_neighbours="mask")
    rows = dataset.sample(max(1, most // len(dataset.recording_ids)), seed)
    spread = np.unique(np.linspace(0, len(rows) - 1, most).round().astype(int))
    return without_padding(gather(dataset, rows[spread]))


def without_padding(windows: ExplainedWindows) -> ExplainedWindows:
    """The same, cut to the longest window: what stands behind changes nothing, and 512 frames take long."""
    longest = windows.real.sum(1).max()
    cut = {name: values[:, :longest] if values.ndim > 1 else values for name, values in windows.inputs.items()}
    return dataclasses.replace(windows, inputs=cut)


def effective_frames(weights: np.ndarray) -> np.ndarray:
    """The exponential of the entropy of each window's weights; (n, T) to (n,)."""
    logs = np.log(weights, where=weights > 0, out=np.zeros_like(weights))
    return np.exp(-(weights * logs).sum(1))


def measure_set(
    model: NeurtForSequenceClassification, windows: ExplainedWindows, seed: int
) -> tuple[dict[str, Any], dict[str, Verdict]]:
    """What is found on the windows of one set."""
    trial = open_trial(model, windows, seed=seed)
    weights = pooling_attention(model, windows, trial.targets)
    about = {
        "windows": len(windows),
        "animals": len(np.unique(windows.subjects)),
        "frames": float(windows.real.sum(1).mean()),
        "effective_frames": float(effective_frames(weights).mean()),
        "class_1": float(trial.targets.mean()),
        "log_odds": float(np.abs(trial.visible).mean()),
    }
    return about, {name: judge(trial, method) for name, method in methods_for(windows).items()}


def section(name: str, about: dict[str, Any], verdicts: dict[str, Verdict]) -> str:
    """A heading, what the windows are, and a row for each method."""
    said = (
        f"{about['windows']} windows of {about['animals']} animals, {about['frames']:.0f} frames each, of which the "
        f"pooling weighs effectively {about['effective_frames']:.0f}. {about['class_1']:.0%} are called class 1; mean "
        f"size of the log-odds {about['log_odds']:.2f}."
    )
    rows = [
        (method, *(str(found.areas[control]) for control in CONTROLS), str(found.alike[RANDOM_WEIGHTS]), _test(found))
        for method, found in verdicts.items()
    ]
    return f"## {name}\n\n{said}\n\n{markdown_table(HEADER, rows)}"


def _test(verdict: Verdict) -> str:
    """The stamp but for the missing labels, which say nothing of the maps."""
    against = [reason for reason in verdict.reasons if "classes" not in reason]
    return against[0] if against else "passed"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=36, help="of a set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    limit_threads()
    torch.manual_seed(options.seed)
    model = published_classifier()
    processor = NeurtProcessor(window_length=model.config.max_position_embeddings)
    found, parts = {}, [TITLE, HOW]
    for name, load in real_sets().items():
        recordings = list(load())
        if len({recording.subject_id for recording in recordings}) < FEWEST_SUBJECTS:
            continue
        about, verdicts = measure_set(
            model, sample(recordings, processor, options.windows, options.seed), options.seed
        )
        found[name] = {"about": about, "methods": {method: each.to_dict() for method, each in verdicts.items()}}
        parts.append(section(name, about, verdicts))
        print(parts[-1], flush=True)
    parts.append(f"Measured on {machine()}, seed {options.seed}.")
    publish("\n\n".join(parts), options.output)
    if options.output is not None:
        options.output.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
