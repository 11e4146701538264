"""A pretraining that is killed again and again ends with the weights of one that was not.

    python benchmarks/resume_after_kill.py [--kills 20] [--seed 0] [--output benchmarks/results/resume_after_kill.md]

`neurt pretrain` runs on a few simulated mice as a process of its own and gets SIGKILL, `--kills` times, each followed
by `--resume`. Every second kill falls while a checkpoint is written, as soon as its unfinished folder is seen; the
others fall a random while after a random step. Then the run is left to end, and its weights and its log are compared
bit for bit with those of a run that nobody killed. It exits with 1 where they differ.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measurement import markdown_table, publish
from neurt import NeurtConfig
from neurt.dataset_scripts.simulate import write_study
from neurt.dataset_scripts.simulation_config import SimulationConfig
from neurt.training.checkpoints import last_checkpoint
from safetensors.torch import load_file

OPTIONS = ["--epochs", 25, "--batch-size", 16, "--checkpoint-every", 1, "--validation-fraction", 0.1]
TASKS = ["--task", "span=2", "--task", "neuron=1", "--task", "forecast=1", "--window-length", 40]
LONGEST_PAUSE = 0.02  # seconds between a step and the kill: about a step
DEADLINE = 120  # seconds


def write_inputs(folder: Path) -> None:
    """A build of six mice, and a small configuration with dropout, which needs the state of the random generators."""
    study = SimulationConfig(subjects_per_group=3, sessions=2, neurons=8, duration=23.2, sampling_rate=5)
    write_study(study, folder / "build")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = NeurtConfig(**sizes, max_position_embeddings=40, hidden_dropout_prob=0.1)
    config.to_json_file(folder / "config.json")


def start(folder: Path, output: Path, *flags: str) -> subprocess.Popen:
    words = ["pretrain", folder / "build", "--output", output, "--config", folder / "config.json", *OPTIONS, *TASKS]
    command = [sys.executable, "-m", "neurt.train", *words, *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen([str(word) for word in command], env=environment, text=True, **silent)


def wait_for(process: subprocess.Popen, happened: Callable[[], bool]) -> None:
    """Wait until something is seen on the disk.

    Raises:
        RuntimeError: If the process ends before, or it takes too long.
    """
    deadline = time.monotonic() + DEADLINE
    while not happened():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"expected a run to kill, got one that ended: {process.stderr.read()[-2000:]}")
        time.sleep(0.0005)


def last_step(training: Path) -> int:
    checkpoint = last_checkpoint(training)
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix("step-"))


def kill_while_writing(process: subprocess.Popen, training: Path, first: int) -> None:
    wait_for(process, lambda: last_step(training) >= first and any(training.glob("writing-*")))
    process.send_signal(signal.SIGKILL)


def kill_after(process: subprocess.Popen, training: Path, first: int, pause: float) -> None:
    wait_for(process, lambda: last_step(training) >= first)
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)


def kill_and_resume(folder: Path, output: Path, steps: int, kills: int, seed: int) -> list[list[str]]:
    """Kill a run at random steps; returns a row for each kill, and leaves the finished run."""
    generator = np.random.default_rng(seed)
    training, rows = output / "training", []
    for number, first in enumerate(np.sort(generator.integers(0, steps - kills, kills)) + np.arange(kills)):
        process = start(folder, output, *(["--resume"] if number else []))
        if number % 2:
            kill_while_writing(process, training, max(first, 1))
        else:
            kill_after(process, training, first, generator.uniform(0, LONGEST_PAUSE))
        process.communicate()
        names = sorted(path.name for path in training.iterdir()) if training.exists() else []
        rows.append([str(number + 1), str(last_step(training)), ", ".join(names) or "nothing"])
    process = start(folder, output, "--resume")
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"expected the run to end, got {errors[-2000:]}")
    return rows


def read_log(output: Path) -> list[dict]:
    return json.loads((output / "results.json").read_text())["log"]


def differences(first: Path, second: Path) -> int:
    """Number of weights of which any bit differs, and of log entries that differ."""
    one, other = (load_file(folder / "model.safetensors") for folder in (first, second))
    weights = sum(not torch.equal(one[name], other[name]) for name in one.keys() | other.keys())
    return weights + sum(a != b for a, b in zip(read_log(first), read_log(second), strict=True))


def report(rows: list[list[str]], steps: int, differing: int) -> str:
    verdict = "every weight and every loss is the same bit for bit" if not differing else f"**{differing} differ**"
    title = (
        f"{len(rows)} times SIGKILL in a pretraining of {steps} steps with dropout, three mask tasks and a checkpoint "
        f"after each step; compared with a run that was not killed, {verdict}.\n"
        f"One process, CPU, fp32, PyTorch {torch.__version__}. `writing-` is a checkpoint that was not whole."
    )
    return f"{title}\n\n{markdown_table(['kill', 'goes on after step', 'what lay in the folder'], rows)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, help="also save the table to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        whole = start(folder, folder / "whole")
        if whole.communicate() and whole.returncode:
            raise RuntimeError("expected the run that is not killed to end")
        steps = read_log(folder / "whole")[-1]["step"]
        rows = kill_and_resume(folder, folder / "killed", steps, arguments.kills, arguments.seed)
        differing = differences(folder / "whole", folder / "killed")
    publish(report(rows, steps, differing), arguments.output)
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
