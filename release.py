"""What a training run leaves: a folder that from_pretrained opens, with scores, settings and a summary for people."""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedModel

from .dataset_scripts.windows import WindowDataset
from .loading import save_quietly
from .processing_neurt import NeurtProcessor
from .splits import Split
from .summary import write_summary


@dataclass(frozen=True)
class Release:
    """A trained model with what its folder says about it.

    Args:
        output: The folder; `training` in it is where the release is put together.
        model: The trained model.
        processor: How its windows were cut.
        split: Who trained and who was tested.
        seen: Animals of the test that training has seen.
        simulated: Whether the recordings were simulated.
        command: What regenerates the run.
        settings: The options.
        datasets: Windows of each side; what they left out is written down.
    """

    output: Path
    model: PreTrainedModel
    processor: NeurtProcessor
    split: Split
    seen: list[str]
    simulated: bool
    command: str
    settings: dict[str, Any]
    datasets: dict[str, WindowDataset] = field(repr=False)

    def write(self, title: str, log: list[dict], reconstruction=None, classification=None, examples=None) -> dict:
        """Write weights, code, processor, results and summary; `results.json` last. Returns the results."""
        scores = {"reconstruction": reconstruction, "classification": classification}
        results = {name: value.to_dict() for name, value in scores.items() if value is not None}
        results |= {"simulated": self.simulated, "command": self.command, "settings": self.settings}
        results |= {"split": self.split.to_dict(), "seen_in_training": self.seen}
        results |= {"skipped": self._skipped(), "dropped": self._dropped(), "log": log}
        if PartialState().is_main_process:
            self._write(title, results, scores, examples)
        PartialState().wait_for_everyone()
        return results

    def _write(self, title: str, results: dict, scores: dict, examples):
        """Put everything together aside, then move it into the folder."""
        aside = self.output / "training" / "release"
        shutil.rmtree(aside, ignore_errors=True)
        save_quietly(self.model, aside)
        self.processor.save_pretrained(aside)
        (aside / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        sides = {part: getattr(self.split, part) for part in ("train", "validation", "test")}
        sides["tested although seen in training"] = self.seen
        write_summary(
            aside,
            title=title,
            **scores,
            examples=examples,
            split={side: ids for side, ids in sides.items() if ids},
            simulated=self.simulated,
            command=self.command,
        )
        for path in sorted(aside.iterdir(), key=lambda path: path.name == "results.json"):
            os.replace(path, self.output / path.name)
        aside.rmdir()

    def _skipped(self) -> dict[str, str]:
        return {name: why for dataset in self.datasets.values() for name, why in dataset.skipped.items()}

    def _dropped(self) -> dict[str, dict[str, int]]:
        return {name: counts for dataset in self.datasets.values() for name, counts in dataset.dropped.items()}
