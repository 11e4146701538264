"""A saved folder opens through the Auto classes, here and in a process that has never heard of neurt."""

import json

import pytest
import torch
from elsewhere import run_elsewhere
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
OPEN = """
import json
import torch
from transformers import (
    AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification, AutoProcessor
)
windows, outputs = torch.linspace(0, 1, 2 * 20 * 5).view(2, 20, 5), {}
for folder in sys.argv[1:]:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    found = outputs[folder] = {"type": config.model_type, "window_length": processor.window_length}
    for auto in (AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification):
        model = auto.from_pretrained(folder, trust_remote_code=True).eval()
        found[auto.__name__] = type(model).__name__, float(model.base_model(windows).last_hidden_state.abs().sum())
        model.save_pretrained("again")
        again = auto.from_pretrained("again", trust_remote_code=True).eval()
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


def test_saved_folders_open_in_a_process_that_cannot_import_neurt(tmp_path):
    models = [cls(small_config()).eval() for cls in (NeurtForMaskedSignalModeling, NeurtForSequenceClassification)]
    folders = [tmp_path / type(model).__name__ for model in models]
    for model, folder in zip(models, folders, strict=True):
        model.save_pretrained(folder)
        NeurtProcessor(window_length=64).save_pretrained(folder)
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}
    said = run_elsewhere(OPEN, *folders, folder=tmp_path, environment=environment)
    outputs = json.loads(said.splitlines()[-1])
    windows = torch.linspace(0, 1, 2 * 20 * 5).view(2, 20, 5)
    for model, folder in zip(models, folders, strict=True):
        found = outputs[str(folder)]
        assert found.pop("type") == "neurt" and found.pop("window_length") == 64
        assert {auto: name for auto, (name, _) in found.items()} == {
            auto.__name__: cls.__name__ for auto, cls in AUTO_CLASSES.items()
        }
        expected = float(model.base_model(windows).last_hidden_state.abs().sum())
        assert [total for _, total in found.values()] == pytest.approx([expected] * 3, rel=1e-5)
