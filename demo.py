"""`neurt demo`: the whole pipeline on simulated mice, every step the command that a user would type."""

import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HELD_OUT = ("sim013", "sim014", "sim015", "sim016", "sim017", "sim018")
"""Three mice of each group: neither pretraining nor fine-tuning sees them."""


def demo_commands(folder: Path, seed: int) -> list[list[str]]:
    """The commands of the demonstration; about eight minutes on two cores."""
    raw, build = folder / "raw", folder / "build"
    pretrained, classifier = folder / "pretrained", folder / "classifier"
    hold_out = [word for mouse in HELD_OUT for word in ("--test", mouse)]
    evaluated = [word for mouse in HELD_OUT for word in ("--subject", mouse)]
    study = ["--subjects-per-group", 9, "--neurons", 40, "--effect-size", 4, "--effect-share", 0.8]
    tuning = [*hold_out, "--epochs", 3, "--seed", seed]
    commands = [
        ["simulate", "--format", "npz", *study, "--output", raw, "--seed", seed],
        ["import", raw, "--metadata", raw / "recordings.csv", "--output", build],
        ["pretrain", build, *hold_out, "--epochs", 5, "--output", pretrained, "--seed", seed],
        ["finetune", build, "--model", pretrained, "--label", "group", *tuning, "--output", classifier],
        ["evaluate", pretrained, build, *evaluated, "--output", folder / "reconstruction.json"],
        ["embed", build, "--model", pretrained, "--output", folder / "embeddings.parquet"],
    ]
    return [[str(word) for word in command] for command in commands]


def run_demo(output: Path, seed: int, run: Callable[[Sequence[str]], None]) -> Path:
    """Run the commands and join the summaries of both models.

    Args:
        output: Folder to make; it must not exist yet.
        seed: Seed of the simulation and of training.
        run: Runs one command, given as words.

    Returns:
        `summary.md`; the models lie in `pretrained` and `classifier` beside it.

    Raises:
        ValueError: If the folder exists.
    """
    if output.exists():
        raise ValueError(
            f"expected an output folder that does not exist yet, got {output}; remove it or choose another"
        )
    start = time.monotonic()
    commands = demo_commands(output, seed)
    for command in commands:
        print(f"\n$ {shlex.join(['neurt', *command])}", flush=True)
        run(command)
    minutes = (time.monotonic() - start) / 60
    parts = [
        "# NEuRT demonstration on simulated mice",
        f"Simulated, imported, pretrained, fine-tuned and evaluated in {minutes:.1f} minutes by these commands:",
        "```\n" + "\n".join(shlex.join(["neurt", *command]) for command in commands) + "\n```",
        *(_section(output, name) for name in ("pretrained", "classifier")),
    ]
    summary = output / "summary.md"
    summary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(f"\nfinished in {minutes:.1f} minutes: {summary}")
    return summary


def _section(output: Path, model: str) -> str:
    """A model's own summary one heading level down, with its figure beside it."""
    text = (output / model / "summary.md").read_text(encoding="utf-8")
    for figure in (output / model).glob("*.png"):
        shutil.copyfile(figure, output / figure.name)
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in text.splitlines())
