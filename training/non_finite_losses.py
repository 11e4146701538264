"""Where a loss that is not finite came from, in one line."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from .batches import cut_batch

MOST_NAMED = 3


def windows_to_blame(batch: Mapping[str, Any], loss_of: Callable[[Mapping[str, Any]], torch.Tensor]) -> list[str]:
    """The windows of a batch that have no finite loss on their own, by recording and ROI.

    Args:
        batch: Windows.
        loss_of: The loss of a batch.
    """
    with torch.no_grad():
        return [_name(window) for window in cut_batch(batch, len(batch["labels"])) if not loss_of(window).isfinite()]


def not_finite(name: str, loss: float, model: torch.nn.Module, windows: Sequence[str]) -> FloatingPointError:
    """The error of a loss that is not finite.

    Args:
        name: What the loss is of.
        loss: Its value.
        model: What it is the loss of; that its weights are not finite is said first.
        windows: Names of the windows to blame.
    """
    got = f"expected a finite {name} loss, got {loss:g}"
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        return FloatingPointError(f"{got}, for weights are no longer finite; pass a lower learning rate")
    if not windows:
        return FloatingPointError(f"{got}, from no window alone; pass a lower learning rate")
    named = list(dict.fromkeys(windows))
    some = ", ".join(named[:MOST_NAMED]) + (", ..." if len(named) > MOST_NAMED else "")
    return FloatingPointError(
        f"{got} from {len(windows)} windows of the batch ({some}); look at the recording with neurt inspect and leave "
        "it out, or pass a lower learning rate"
    )


def _name(window: Mapping[str, Any]) -> str:
    known = {name: window[key][0] for name, key in (("recording", "recording_id"), ("ROI", "roi_id")) if key in window}
    return " ".join(f"{name} {value}" for name, value in known.items()) or "a window without a name"
