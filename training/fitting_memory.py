"""Batches that are too large for memory are cut into more pieces; the training stays the same."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from accelerate.utils import find_executable_batch_size
from transformers.utils import logging

from .batches import cut_batch

logger = logging.get_logger(__name__)


def fitting_pieces(batch: Mapping[str, Any], num_pieces: int, train_on: Callable[[Mapping[str, Any]], None]) -> int:
    """Find into how many pieces a batch must be cut: `num_pieces`, or twice as many, and so on.

    Args:
        batch: Windows, as many as any other batch has.
        num_pieces: The least number.
        train_on: Takes a piece forwards and backwards through the model.

    Raises:
        ValueError: If memory does not suffice for one window.
    """
    num_windows = len(batch["labels"])

    def halve() -> int:
        nonlocal num_pieces
        if num_pieces >= num_windows:
            raise ValueError("expected memory for one window, got too little; use shorter windows or a smaller model")
        num_pieces *= 2
        logger.warning("out of memory: cutting each batch into %d pieces", num_pieces)
        return math.ceil(num_windows / num_pieces)

    @find_executable_batch_size(starting_batch_size=math.ceil(num_windows / num_pieces), reduce_batch_size_fn=halve)
    def attempt(piece_size: int):
        train_on(cut_batch(batch, num_pieces)[0])

    attempt()
    return num_pieces
