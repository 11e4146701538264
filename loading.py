"""Open model folders: what cannot be opened is one plain line, and weights are never made up in silence."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import Pipeline, PreTrainedModel
from transformers.utils import logging

from .configuration_neurt import NeurtConfig
from .processing_neurt import NeurtProcessor

# The root of the repository, or what of it an installed package holds.
_SHIPPED = Path(__file__).parent

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def shipped_model() -> Path:
    """The folder of the weights that came with the package.

    Raises:
        ValueError: If none did.
    """
    if not (_SHIPPED / "model.safetensors").is_file():
        raise ValueError(f"expected weights in {_SHIPPED}, got none; pass --model, or make them with make weights")
    return _SHIPPED


def load_config(model: str | Path) -> NeurtConfig:
    """Read the configuration of a model folder, or of a model on the Hub.

    Raises:
        ValueError: If there is none, or it is not NEuRT's.
    """
    folder = Path(model)
    if folder.exists() or not _HUB_NAME.fullmatch(str(model)):
        if not (folder / "config.json").is_file():
            raise ValueError(f"expected the folder of a model, got {model}, which has no config.json")
    with _plainly(model):
        settings, _ = NeurtConfig.get_config_dict(str(model))
        if settings.get("model_type") != NeurtConfig.model_type:
            raise ValueError(f"its model_type is {settings.get('model_type')!r}, not {NeurtConfig.model_type!r}")
        return NeurtConfig.from_pretrained(str(model))


def load_processor(model: str | Path, **overrides) -> NeurtProcessor:
    """Read the processor beside a model.

    Args:
        model: Folder or Hub name.
        **overrides: Settings that differ.

    Raises:
        ValueError: If there is none. transformers would make up one with default settings.
    """
    load_config(model)
    if Path(model).exists() and not (Path(model) / "processor_config.json").is_file():
        raise ValueError(
            f"expected a processor beside the model, got {model}, where there is no processor_config.json"
        )
    with _plainly(model):
        return NeurtProcessor.from_pretrained(str(model), **overrides)


def load_quietly(
    cls: type[PreTrainedModel], model: str | Path, *, new_head: bool = False, **overrides
) -> PreTrainedModel:
    """`from_pretrained` without progress bars and reports, which refuses weights that are not in the file.

    Args:
        cls: Class of the model.
        model: Folder or Hub name.
        new_head: Whether everything outside the encoder may be new, as when a pretrained model is fine-tuned.
        **overrides: Of the configuration.

    Raises:
        ValueError: If the folder cannot be opened, or lacks weights.
    """
    load_config(model)
    with _quietly(), _plainly(model):
        network, report = cls.from_pretrained(
            str(model), output_loading_info=True, ignore_mismatched_sizes=True, **overrides
        )
    absent = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    if new_head:
        absent = {key for key in absent if key.startswith(f"{cls.base_model_prefix}.")}
    if absent:
        raise ValueError(
            f"expected the weights of a {cls.__name__}, got {model}, which lacks {min(absent)}, or has it in another "
            f"size ({len(absent)} weights in all)"
        )
    return network


def save_quietly(network: PreTrainedModel | Pipeline, folder: Path):
    """`save_pretrained` without a progress bar that lasts a moment."""
    with _quietly():
        network.save_pretrained(folder)


def read_config(path: Path) -> NeurtConfig:
    """Read the configuration of a new model from a `config.json`.

    Raises:
        ValueError: If the file cannot be read, or describes no NEuRT model.
    """
    with _plainly(path):
        unknown = json.loads(path.read_text(encoding="utf-8")).keys() - NeurtConfig().to_dict().keys()
        if unknown:
            raise ValueError(f"there is no setting {min(unknown)!r}")
        return NeurtConfig.from_json_file(path)


@contextlib.contextmanager
def _plainly(model: str | Path) -> Iterator[None]:
    """Say in one sentence that a model cannot be opened, and why."""
    try:
        yield
    except (
        OSError,
        ValueError,
        RuntimeError,
        TypeError,
        AttributeError,
        SafetensorError,
        StrictDataclassError,
    ) as error:
        sentence = re.split(r"\. ", " ".join(str(error).split()), maxsplit=1)[0]
        raise ValueError(f"expected a NEuRT model that can be opened, got {model}: {sentence}") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without progress bars that last a moment, and reports on a head that is new by intention."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def name_of(place: str | Path) -> str:
    """What to call a model, or a build, for others to read: a folder by its own name, a Hub name as it is."""
    return Path(place).resolve().name if Path(place).exists() else str(place)
