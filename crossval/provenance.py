"""What a study was made of: digests of the build, the weights and the folds, and versions of what computed it."""

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME, PROCESSOR_NAME, SAFE_WEIGHTS_NAME, cached_file

from ..dataset_scripts.build_manifest import MANIFEST
from .cohort import Cohort
from .folds import Fold

PACKAGES = ("neurt", "torch", "transformers", "scikit-learn")


def provenance(build: Path, model: str | Path, cohort: Cohort, folds: Sequence[Fold]) -> dict[str, Any]:
    """SHA-256 of each by name, and the versions of `PACKAGES`.

    Args:
        build: Parquet build.
        model: Folder or Hub name.
        cohort: The animals.
        folds: Who was held out.
    """
    return {
        "build_sha256": manifest_digest(build),
        "weights_sha256": weights_digest(model),
        "folds_sha256": folds_digest(cohort, folds),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """The versions of `PACKAGES`."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def manifest_digest(build: Path) -> str:
    """SHA-256 of a build's manifest, which holds the digest of every file of it."""
    return _digest(Path(build) / MANIFEST)


def weights_digest(model: str | Path) -> str:
    """SHA-256 of a model's weights."""
    return _digest(Path(cached_file(str(model), SAFE_WEIGHTS_NAME)))


def model_digests(model: str | Path) -> list[str]:
    """SHA-256 of all that says what a model makes of a recording: its weights, its configuration, its processor's."""
    return [_digest(Path(cached_file(str(model), name))) for name in (SAFE_WEIGHTS_NAME, CONFIG_NAME, PROCESSOR_NAME)]


def folds_digest(cohort: Cohort, folds: Sequence[Fold]) -> str:
    """SHA-256 over the names of the animals on each side of each fold."""
    names = [[[cohort.subjects[place] for place in side] for side in (fold.train, fold.test)] for fold in folds]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
