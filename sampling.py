"""Which of many things to look at when not all can be."""

import numpy as np


def evenly_spaced(total: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `total` things in a row, the first and the last among them; all if they are few."""
    return np.linspace(0, total - 1, min(total, most)).round().astype(int)
