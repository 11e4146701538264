"""Convert a checkpoint of the original NEuRT (rgKric/NEuRT, `.pth`) into a folder that `from_pretrained` opens.

neurt convert model_epoch_20.pth --config model_cfg.json --output converted
"""

import dataclasses
import json
import pickle
import warnings
from pathlib import Path
from typing import BinaryIO

import torch
from huggingface_hub.errors import StrictDataclassError

from .configuration_neurt import NeurtConfig
from .modeling_neurt import NeurtForMaskedSignalModeling, NeurtForSequenceClassification, NeurtPreTrainedModel
from .processing_neurt import NeurtProcessor
from .writing_aside import folder_aside, require_new

# Original name -> name here, of modules that have a weight and a bias; `{i}` counts layers.
ENCODER_NAMES = {
    "embed.lin": "embeddings.input_projection",
    "embed.norm": "embeddings.norm",
    "blocks.{i}.attn.proj_q": "layers.{i}.attention.q_proj",
    "blocks.{i}.attn.proj_k": "layers.{i}.attention.k_proj",
    "blocks.{i}.attn.proj_v": "layers.{i}.attention.v_proj",
    "blocks.{i}.proj": "layers.{i}.attention.o_proj",
    "blocks.{i}.norm1": "layers.{i}.attention_norm",
    "blocks.{i}.pwff.fc1": "layers.{i}.mlp.fc1",
    "blocks.{i}.pwff.fc2": "layers.{i}.mlp.fc2",
    "blocks.{i}.norm2": "layers.{i}.mlp_norm",
}
POSITION_NAMES = ("embed.pos_embed.weight", "embeddings.position_embeddings.weight")
QUERY_NAMES = ("classification_blocks.q", "pooling_query")
CLASSIFIER_NAMES = ("classification_blocks.lin1", "classifier")

OPTION_NAMES = {
    "hidden": "hidden_size",
    "hidden_ff": "intermediate_size",
    "feature_num": "num_channels",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "seq_len": "max_position_embeddings",
    "emb_norm": "embedding_norm",
    "use_parametr_sharing_strategy": "share_layers",
    "block_embedding_mode": "readout_position",
    "embedding_mode": "readout",
}
OPTION_VALUES = {
    "block_embedding_mode": {"not_hidden": "feed_forward", "hidden": "attention"},
    "embedding_mode": {"last": "last", "sum_all": "sum"},
}
CLASS_NAMES = {0: "WT", 1: "5xFAD"}  # wild type; the Alzheimer's disease model of the original's miniscope recordings
MODEL_CLASSES = {"reconstruction": NeurtForMaskedSignalModeling, "classifier": NeurtForSequenceClassification}


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Args:
        kind: "reconstruction" or "classifier".
        model: The model that was built.
        dropped: Original names of the parameters that have no place in it.
    """

    kind: str
    model: NeurtPreTrainedModel
    dropped: tuple[str, ...]

    @property
    def processor(self) -> NeurtProcessor:
        """The original's processing, as far as it is known: its neighbour radius was never published."""
        return NeurtProcessor(window_length=self.model.config.max_position_embeddings, normalization="minmax")

    def summary(self) -> str:
        """What was converted, in a few lines."""
        config = self.model.config
        options = [f"{name}={getattr(config, name)}" for name in OPTION_NAMES.values()]
        lines = [
            f"{self.kind} checkpoint -> {type(self.model).__name__}, {self.model.num_parameters():,} parameters",
            f"options: {', '.join(options)}",
        ]
        if self.kind == "classifier":
            lines.append(f"classes: {', '.join(f'{i} {name}' for i, name in config.id2label.items())}")
        lines.append(f"dropped, not used by this model: {', '.join(self.dropped) or 'nothing'}")
        processor = self.processor
        lines.append(
            f"processing: {processor.normalization}, windows of {processor.window_length} frames; the original's "
            f"neighbour radius was never published, {processor.neighbour_radius} ({processor.radius_unit}) stands in"
        )
        return "\n".join(lines)


def read_state_dict(checkpoint_path: str | Path) -> dict[str, torch.Tensor]:
    """Read the original's parameters, without the `module.` that data parallelism put before each name.

    Args:
        checkpoint_path: A `.pth` file. Only plain tensors are read: code pickled into the file never runs.

    Raises:
        ValueError: If the file is damaged, or holds anything but a dictionary of tensors.
        OSError: If it cannot be opened.
    """
    with open(checkpoint_path, "rb") as file:
        state_dict = _load_tensors(file, checkpoint_path)
    if not isinstance(state_dict, dict) or not all(isinstance(v, torch.Tensor) for v in state_dict.values()):
        raise ValueError(f"{checkpoint_path}: expected a dictionary of tensors, got {_describe(state_dict)}")
    if all(name.startswith("module.") for name in state_dict):
        state_dict = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    return state_dict


def _load_tensors(file: BinaryIO, checkpoint_path: str | Path) -> object:
    try:
        with warnings.catch_warnings(action="ignore"):  # a foreign file makes torch warn before it refuses
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{checkpoint_path}: expected a PyTorch checkpoint of plain tensors, got a file that holds something "
            "else; nothing in it was run, and it should not be opened by other means"
        ) from None
    except Exception as error:  # a damaged file fails anywhere in the reader, with errors of any class
        raise ValueError(
            f"{checkpoint_path}: expected a PyTorch checkpoint, got a damaged or truncated file "
            f"({type(error).__name__}); fetch it again"
        ) from None


def _describe(content: object) -> str:
    if isinstance(content, dict):
        others = [f"{name} ({type(v).__name__})" for name, v in content.items() if not isinstance(v, torch.Tensor)]
        return f"one that also holds {', '.join(others[:5])}"
    return f"a {type(content).__name__}"


def read_options(config_path: str | Path) -> dict:
    """Read the original's `model_cfg.json` as arguments of `NeurtConfig`.

    Raises:
        ValueError: If the file is not JSON, or an option is missing, unknown or has an unknown value.
        OSError: If it cannot be opened.
    """
    try:
        original = json.loads(Path(config_path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{config_path}: expected the original's model_cfg.json, got no JSON ({error})") from None
    if not isinstance(original, dict):
        raise ValueError(f"{config_path}: expected a JSON object of options, got a {type(original).__name__}")
    _check_names(config_path, "options", set(OPTION_NAMES), set(original))
    options = {}
    for name, value in original.items():
        values = OPTION_VALUES.get(name)
        if values is not None and value not in values:
            raise ValueError(f"{config_path}: expected {name} among {', '.join(values)}, got {value!r}")
        options[OPTION_NAMES[name]] = values[value] if values is not None else value
    return options


def checkpoint_kind(state_dict: dict[str, torch.Tensor]) -> str:
    """Tell a "classifier" from a "reconstruction" checkpoint by its names."""
    head = ("bert.", "classification_blocks.")
    return "classifier" if any(name.startswith(head) for name in state_dict) else "reconstruction"


def name_table(kind: str, num_layers: int, share_layers: bool) -> dict[str, str | None]:
    """Name here of every parameter of an original checkpoint; None where it has no place.

    Args:
        kind: "reconstruction" or "classifier".
        num_layers: Depth of the encoder.
        share_layers: One layer serves all depths; the original then writes no layer number.
    """
    modules = {}
    for original, ours in ENCODER_NAMES.items():
        for i in range(1 if share_layers else num_layers):
            original_name = original.replace(".{i}", "" if share_layers else f".{i}")
            modules[original_name] = f"neurt.{ours.format(i=i)}"
    # The classifier carries the decoder it was pretrained with and never uses it.
    modules["decoder"] = "decoder" if kind == "reconstruction" else None

    names = {POSITION_NAMES[0]: f"neurt.{POSITION_NAMES[1]}"}
    for original, ours in modules.items():
        names.update(_parameter_names(original, ours))
    if kind == "classifier":
        names = {f"bert.{original}": ours for original, ours in names.items()}
        names[QUERY_NAMES[0]] = QUERY_NAMES[1]
        names.update(_parameter_names(*CLASSIFIER_NAMES))
    return names


def _parameter_names(original: str, ours: str | None) -> dict[str, str | None]:
    is_norm = original.rpartition(".")[2].startswith("norm")
    weight, bias = ("gamma", "beta") if is_norm else ("weight", "bias")
    return {
        f"{original}.{weight}": ours and f"{ours}.weight",
        f"{original}.{bias}": ours and f"{ours}.bias",
    }


def build_model(state_dict: dict[str, torch.Tensor], options: dict) -> Conversion:
    """Build the model that computes what the original computes.

    Args:
        state_dict: As `read_state_dict` gives it.
        options: As `read_options` gives them.

    Raises:
        ValueError: If names or shapes are not exactly those that the options call for, or a value is not finite.
    """
    kind = checkpoint_kind(state_dict)
    labels = {"id2label": CLASS_NAMES, "label2id": {name: i for i, name in CLASS_NAMES.items()}}
    try:
        config = NeurtConfig.original(**options, **(labels if kind == "classifier" else {}))
    except StrictDataclassError as error:
        raise ValueError(f"model_cfg.json: {error.__cause__ or error}") from None

    names = name_table(kind, config.num_hidden_layers, config.share_layers)
    _check_names("checkpoint", "parameters", set(names), set(state_dict))
    converted = {ours: state_dict[original].float() for original, ours in names.items() if ours is not None}
    if kind == "classifier":
        converted[QUERY_NAMES[1]] = converted[QUERY_NAMES[1]].flatten()  # (1, 1, D) in the original

    with torch.device("meta"):
        model = MODEL_CLASSES[kind](config)
    _check_tensors(converted, model.state_dict())
    model.load_state_dict(converted, strict=True, assign=True)
    return Conversion(kind, model.eval(), tuple(original for original, ours in names.items() if ours is None))


def _check_names(subject: str | Path, noun: str, expected: set[str], got: set[str]):
    problems = [
        f"{len(names)} {what} ({', '.join(sorted(names)[:8])}{', ...' if len(names) > 8 else ''})"
        for what, names in (("missing", expected - got), ("unknown", got - expected))
        if names
    ]
    if problems:
        raise ValueError(
            f"{subject}: expected the {len(expected)} {noun} of an original NEuRT, got {' and '.join(problems)}; "
            "is the checkpoint given with its own model_cfg.json?"
        )


def _check_tensors(converted: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]):
    for name, tensor in converted.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"checkpoint: expected {name} of shape {tuple(expected[name].shape)}, got {tuple(tensor.shape)}; "
                "is the checkpoint given with its own model_cfg.json?"
            )
        if not tensor.isfinite().all():
            raise ValueError(f"checkpoint: expected finite numbers, got NaN or infinity in {name}; fetch it again")


def convert_checkpoint(checkpoint_path: str | Path, config_path: str | Path, output: str | Path) -> Conversion:
    """Convert an original checkpoint of either kind and save it as safetensors.

    Args:
        checkpoint_path: The original's `.pth` file.
        config_path: The `model_cfg.json` that was trained with.
        output: Folder to make; it must not exist yet.

    Raises:
        ValueError: If checkpoint or options are not the original's, or the folder exists.
        OSError: If a file cannot be opened or written.
    """
    require_new(output, "a folder")
    conversion = build_model(read_state_dict(checkpoint_path), read_options(config_path))
    with folder_aside(output) as aside:
        conversion.model.save_pretrained(aside)
        conversion.processor.save_pretrained(aside)
    return conversion
