"""A saved folder opens through the Auto classes, here and in a process that has never heard of neurt."""

import json
import subprocess
import sys

import pytest
import torch
from neurt import (
    NeurtConfig,
    NeurtForMaskedSignalModeling,
    NeurtForSequenceClassification,
    NeurtModel,
    NeurtProcessor,
)
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoProcessor,
)

AUTO_CLASSES = {
    AutoModel: NeurtModel,
    AutoModelForPreTraining: NeurtForMaskedSignalModeling,
    AutoModelForSequenceClassification: NeurtForSequenceClassification,
}
WITHOUT_NEURT = """
import importlib.util, json, sys
sys.path = [path for path in sys.path if path]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
assert importlib.util.find_spec("neurt") is None
import torch
from transformers import (
    AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification, AutoProcessor
)
folder = sys.argv[1]
windows = torch.linspace(0, 1, 2 * 20 * 5).view(2, 20, 5)
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
outputs = {"type": config.model_type, "window_length": processor.window_length}
for auto in (AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification):
    model = auto.from_pretrained(folder, trust_remote_code=True).eval()
    outputs[auto.__name__] = type(model).__name__, float(model.base_model(windows).last_hidden_state.abs().sum())
    model.save_pretrained(sys.argv[2])
    again = auto.from_pretrained(sys.argv[2], trust_remote_code=True).eval()
    assert torch.equal(again(windows)[0], model(windows)[0])
print(json.dumps(outputs))
"""


def small_config():
    return NeurtConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2)


@pytest.mark.parametrize("auto", AUTO_CLASSES)
def test_importing_neurt_registers_its_classes(auto):
    assert type(auto.from_config(small_config())) is AUTO_CLASSES[auto]


def test_a_saved_folder_opens_by_every_auto_class(tmp_path):
    NeurtForMaskedSignalModeling(small_config()).save_pretrained(tmp_path)
    NeurtProcessor(window_length=64).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is NeurtConfig
    assert AutoProcessor.from_pretrained(tmp_path).window_length == 64
    for auto, cls in AUTO_CLASSES.items():
        assert type(auto.from_pretrained(tmp_path)) is cls


@pytest.mark.parametrize("cls", [NeurtForMaskedSignalModeling, NeurtForSequenceClassification])
def test_a_saved_folder_opens_in_a_process_that_cannot_import_neurt(cls, tmp_path):
    model = cls(small_config()).eval()
    model.save_pretrained(tmp_path / "model")
    NeurtProcessor(window_length=64).save_pretrained(tmp_path / "model")
    (tmp_path / "elsewhere").mkdir()
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_NEURT, str(tmp_path / "model"), str(tmp_path / "again")],
        cwd=tmp_path / "elsewhere",
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    outputs = json.loads(result.stdout.splitlines()[-1])
    windows = torch.linspace(0, 1, 2 * 20 * 5).view(2, 20, 5)
    expected = float(model.base_model(windows).last_hidden_state.abs().sum())
    assert outputs.pop("type") == "neurt" and outputs.pop("window_length") == 64
    assert {auto: name for auto, (name, _) in outputs.items()} == {
        auto.__name__: cls.__name__ for auto, cls in AUTO_CLASSES.items()
    }
    for _, total in outputs.values():
        assert total == pytest.approx(expected, rel=1e-5)
