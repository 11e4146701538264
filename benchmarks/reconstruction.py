"""How well is hidden activity of real recordings reconstructed, and is a model better than what needs none?

    python benchmarks/reconstruction.py --model FOLDER --output benchmarks/results/reconstruction.md

Every set of real recordings that `real_sets` finds; tasks and baselines as in `reconstruction_windows` and
`reconstruction_predictors`, all on the same windows with the same values hidden. Beside the table lie a .json file
with every number and two figures. The whole run takes about twenty minutes on two cores.

The published checkpoint is converted from the folder in `--published`, by default the one that
`NEURT_PUBLISHED_CHECKPOINT` names, or `checkpoints/recon` beside the folder of real recordings; without one its rows
are left out.
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measurement import REPOSITORY, digest_of, publish, recordings_digest, save_found
from neurt.convert_checkpoint import build_model, read_options, read_state_dict
from neurt.dataset_scripts.recording import Recording
from neurt.loading import load_processor, load_quietly
from neurt.modeling_neurt import NeurtForMaskedSignalModeling
from neurt.processing_neurt import CHANNELS, NeurtProcessor
from real_sets import SETS, real_data_folder, real_sets
from reconstruction_figures import draw_forecasts, draw_ratios
from reconstruction_predictors import CALIBRATED, MODEL, PUBLISHED, predictors
from reconstruction_report import report
from reconstruction_statistics import add_predictor, ceiling_rows, errors_of, horizon_rows, score_rows
from reconstruction_windows import TASKS, Windows, hidden_channels, make_fields, sample_windows

WITHOUT_POSITIONS = ("span", "forecast")
FEWEST_WINDOWS = 1024  # of a set, where it has that many


def published_folder() -> Path:
    """Where the published checkpoint lies, if it does."""
    return Path(os.environ.get("NEURT_PUBLISHED_CHECKPOINT", real_data_folder().parent / "checkpoints" / "recon"))


def load_published(folder: Path) -> NeurtForMaskedSignalModeling:
    """The original's reconstruction model from its folder.

    Raises:
        ValueError: If the folder does not hold one checkpoint with its options.
    """
    checkpoints = sorted(folder.glob("*.pth"))
    if len(checkpoints) != 1:
        raise ValueError(f"expected one .pth file in {folder}, got {len(checkpoints)}; pass its folder as --published")
    return build_model(read_state_dict(checkpoints[0]), read_options(folder / "model_cfg.json")).model


def measure_set(
    recordings: Sequence[Recording],
    processor: NeurtProcessor,
    models: dict[str, NeurtForMaskedSignalModeling],
    tasks: Sequence[str],
    most: int,
    seed: int,
) -> dict[str, Any]:
    """What is found on one set, task by task.

    Args:
        recordings: Of the set.
        processor: The model's.
        models: The model and, if it is there, the published checkpoint.
        tasks: Among `TASKS`; those that need positions are left out where there are none.
        most: Windows of one recording at most, or as many as make `FEWEST_WINDOWS` of a set.
        seed: Of the sample and the masks.
    """
    most = max(most, FEWEST_WINDOWS // len(recordings))
    positioned = any(recording.centroids is not None for recording in recordings)
    found = {"about": about(recordings), "tasks": {}, "left_out": {}}
    for task in tasks:
        if not positioned and task not in WITHOUT_POSITIONS:
            continue
        fields, skipped = make_fields(recordings, processor, task)
        if fields:
            windows = sample_windows(fields, task, processor.window_length, most, seed)
            found["tasks"][task] = measure_task(windows, task, models) | {"skipped": skipped}
        else:
            found["left_out"][task] = next(iter(skipped.values()))
    return found


def about(recordings: Sequence[Recording]) -> dict[str, Any]:
    """What a set is, in numbers and words."""
    rates = [recording.sampling_rate for recording in recordings]
    return {
        "animals": len({recording.subject_id for recording in recordings}),
        "recordings": len(recordings),
        "trace_kinds": sorted({recording.trace_kind for recording in recordings}),
        "rates": [min(rates), max(rates)],
        "sha256": recordings_digest(recordings),
    }


def measure_task(windows: Windows, task: str, models: dict[str, NeurtForMaskedSignalModeling]) -> dict[str, Any]:
    """Scores of every predictor on the same windows."""
    errors = errors_of(windows, task)
    seconds = {}
    for name, predict in predictors(task, models).items():
        start = time.monotonic()
        add_predictor(errors, name, predict(windows), windows, task)
        seconds[name] = round(time.monotonic() - start, 1)
    channels = CHANNELS[: windows.values.shape[2]]
    found = {
        "windows": len(windows),
        "neurons": len(set(zip(windows.field.tolist(), windows.neuron.tolist(), strict=True))),
        "unit": errors.unit,
        "units": int(errors.owner.max()) + 1,
        "seconds": seconds,
        "rows": score_rows(errors, channels, MODEL),
    }
    if CALIBRATED in errors.squared:
        found["calibrated_rows"] = score_rows(errors, channels, CALIBRATED)
    if task == "forecast":
        found["horizons"] = horizon_rows(errors, channels, MODEL)
    if 0 in hidden_channels(task, len(channels)):
        found["ceiling"] = ceiling_rows(errors)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=REPOSITORY, help="folder of the model [the repository]")
    parser.add_argument("--published", type=Path, help="folder of the published checkpoint")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="sets of recordings [all]")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="what is hidden [everything in turn]")
    parser.add_argument("--windows", type=int, default=48, help="windows of a recording, at most [48]")
    parser.add_argument("--seed", type=int, default=0, help="of the sample of windows and the masks [0]")
    parser.add_argument("--output", type=Path, help="Markdown file to save, with .json and .png files beside it")
    arguments = parser.parse_args()
    start = time.monotonic()
    models = {MODEL: load_quietly(NeurtForMaskedSignalModeling, arguments.model).eval()}
    folder = arguments.published or published_folder()
    if arguments.published or folder.is_dir():
        models[PUBLISHED] = load_published(folder)
    processor, sets = load_processor(arguments.model), real_sets()
    results = {}
    for name in arguments.sets:
        results[name] = measure_set(
            sets[name](), processor, models, arguments.tasks, arguments.windows, arguments.seed
        )
        print(f"{name}: {(time.monotonic() - start) / 60:.1f} minutes", flush=True)
    settings = {"windows": arguments.windows, "seed": arguments.seed, "window_length": processor.window_length}
    publish(report(results, settings, time.monotonic() - start), arguments.output)
    if arguments.output:
        save_found(
            {"settings": settings, "sets": results},
            arguments.output,
            model=arguments.model,
            seed=arguments.seed,
            simulated=False,
            data_sha256=digest_of({name: found["about"]["sha256"] for name, found in results.items()}),
        )
        draw_ratios(results, arguments.output.with_name("reconstruction_ratios.png"))
        draw_forecasts(results, arguments.output.with_name("reconstruction_forecasts.png"))


if __name__ == "__main__":
    main()
