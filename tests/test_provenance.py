"""What a study was made of is named by digests that change with it, and with nothing else."""

import hashlib
import importlib.metadata
import json
import shutil

import numpy as np
import torch
import transformers
from neurt.crossval.cohort import make_cohort
from neurt.crossval.folds import Fold
from neurt.crossval.provenance import folds_digest, provenance
from neurt.dataset_scripts.parquet_build import read_build


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_build_weights_and_folds_are_named_by_their_bytes_and_names(build, pretrained, tmp_path):
    cohort = make_cohort(list(read_build(build)), "group")
    folds = [Fold(np.array([0, 1, 2, 3]), np.array([4, 5])), Fold(np.array([4, 5]), np.array([0, 1, 2, 3]))]
    first, last = ["sim001", "sim002", "sim003", "sim004"], ["sim005", "sim006"]
    found = provenance(build, pretrained, cohort, folds)
    assert found["folds_sha256"] == sha256(json.dumps([[first, last], [last, first]]).encode())
    assert found["build_sha256"] == sha256((build / "manifest.json").read_bytes())
    assert found["weights_sha256"] == sha256((pretrained / "model.safetensors").read_bytes())
    versions = {"neurt": importlib.metadata.version("neurt"), "torch": torch.__version__}
    versions["transformers"] = transformers.__version__
    assert versions.items() <= found["versions"].items()

    elsewhere = shutil.copytree(build, tmp_path / "build"), shutil.copytree(pretrained, tmp_path / "model")
    assert provenance(*elsewhere, cohort, folds) == found
    assert folds_digest(cohort, folds[::-1]) != found["folds_sha256"]
