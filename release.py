"""What a training run leaves: a folder that from_pretrained opens, with scores, settings and a summary for people."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import Pipeline, PreTrainedModel

from .cards import CARD, is_written, write_card
from .crossval.provenance import manifest_digest, versions, weights_digest
from .dataset_scripts.build_manifest import read_manifest
from .dataset_scripts.recording import SIMULATED
from .distribution import Reference
from .evaluation import ClassificationScores, ReconstructionExample, ReconstructionScores
from .loading import save_quietly
from .modeling_neurt import NeurtForSequenceClassification
from .pipeline_neurt import NeuronSignalClassificationPipeline
from .processing_neurt import NeurtProcessor
from .summary import write_summary
from .training.data import PARTS, TrainingData


@dataclass(frozen=True)
class Release:
    """A trained model with what its folder says about it.

    Args:
        output: The folder; `training` in it is where the release is put together.
        model: The trained model.
        processor: How its windows were cut.
        data: Who trained and who was tested; what their windows left out is written down.
        seen: Animals of the test that training has seen.
        command: What regenerates the run.
        settings: The options.
        hours: What the training took; None if it was interrupted.
    """

    output: Path
    model: PreTrainedModel
    processor: NeurtProcessor
    data: TrainingData = field(repr=False)
    seen: list[str]
    command: str
    settings: dict[str, Any]
    hours: float | None

    def write(
        self,
        title: str,
        log: list[dict],
        *,
        reconstruction: ReconstructionScores | None = None,
        classification: ClassificationScores | None = None,
        examples: Sequence[ReconstructionExample] | None = None,
        reference: Reference | None = None,
    ) -> dict[str, Any]:
        """Write weights, code, processor, reference, summary, results and of these the card. Returns the results."""
        scores = {"reconstruction": reconstruction, "classification": classification}
        results = {name: value.to_dict() for name, value in scores.items() if value is not None}
        results |= {"simulated": self.data.simulated, "command": self.command, "settings": self.settings}
        results |= {"split": self.data.split.to_dict(), "seen_in_training": self.seen}
        results |= self._left_out() | {"data": self._trained_on(), "training_hours": self.hours, "log": log}
        if PartialState().is_main_process:
            self._write(title, results, scores, examples, reference)
        PartialState().wait_for_everyone()
        return results

    def _write(self, title: str, results: dict, scores: dict, examples, reference):
        """Put everything together aside, then move it into the folder."""
        aside = self.output / "training" / "release"
        shutil.rmtree(aside, ignore_errors=True)
        save_quietly(self._with_pipeline(), aside)
        self.processor.save_pretrained(aside)
        if reference is not None:
            reference.save(aside)
        digests = {"build_sha256": manifest_digest(self.data.build), "weights_sha256": weights_digest(aside)}
        results["provenance"] = {**digests, "versions": versions()}
        (aside / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        write_card(aside)
        sides = {part: getattr(self.data.split, part) for part in PARTS}
        sides["tested although seen in training"] = self.seen
        write_summary(
            aside,
            title=title,
            **scores,
            examples=examples,
            split={side: ids for side, ids in sides.items() if ids},
            seen=self.seen,
            simulated=self.data.simulated,
            command=self.command,
        )
        if is_written(self.output / CARD):
            (aside / CARD).unlink()
        for path in sorted(aside.iterdir(), key=lambda path: path.name == "results.json"):
            os.replace(path, self.output / path.name)
        aside.rmdir()

    def _with_pipeline(self) -> PreTrainedModel | Pipeline:
        """A classifier in its pipeline, which saves its own code beside the model's."""
        if not isinstance(self.model, NeurtForSequenceClassification):
            return self.model
        return NeuronSignalClassificationPipeline(self.model, processor=self.processor, device=self.model.device)

    def _trained_on(self) -> dict[str, Any]:
        """What the recordings that were trained on are, and under which licences; None for those that state none."""
        recordings = self.data.split.recordings(self.data.recordings, "train")
        origins = [step.get("origin", {}) for step in read_manifest(self.data.build)["steps"]]
        return {
            "recordings": len(recordings),
            "subjects": len({recording.subject_id for recording in recordings}),
            "simulated_recordings": sum(recording.modality == SIMULATED for recording in recordings),
            "trace_kinds": sorted({recording.trace_kind for recording in recordings}),
            "sampling_rates": [pick(recording.sampling_rate for recording in recordings) for pick in (min, max)],
            "licences": sorted({origin.get("licence") for origin in origins}, key=str),
        }

    def _left_out(self) -> dict[str, dict]:
        """What gave no windows: recordings, neurons, frames; and what was padded, on each side of the split."""
        datasets = self.data.datasets
        by_recording = {
            name: dict(chain.from_iterable(getattr(dataset, name).items() for dataset in datasets.values()))
            for name in ("skipped", "dropped", "unused_frames")
        }
        return by_recording | {"padded_windows": {part: each.num_padded_windows for part, each in datasets.items()}}
