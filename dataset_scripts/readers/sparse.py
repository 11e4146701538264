"""Sparse matrices from files, checked: SciPy's compiled code believes their indices, and crashes on wrong ones."""

import numpy as np
import scipy.sparse


def checked_columns(
    values: np.ndarray, rows: np.ndarray, starts: np.ndarray, shape: tuple[int, int]
) -> scipy.sparse.csc_array:
    """Return the sparse matrix whose columns are stored one after the other.

    Args:
        values: Numbers of shape (n,).
        rows: The row of each, whole numbers of shape (n,).
        starts: Where each column starts among them, and where the last ends; whole numbers of shape (columns + 1,).
        shape: Rows and columns.

    Raises:
        ValueError: If these do not describe a matrix.
    """
    if not all(array.ndim == 1 and array.dtype.kind in "iu" for array in (rows, starts)) or values.ndim != 1:
        raise ValueError("the rows and columns of a sparse matrix are not whole numbers")
    rows, starts = rows.astype(np.int64), starts.astype(np.int64)
    # Without bounds, a difference may overflow and look like a step ahead.
    within = len(starts) == shape[1] + 1 and starts[0] == 0 and starts.max() <= len(values) and starts.min() >= 0
    if not within or (np.diff(starts) < 0).any():
        raise ValueError("the columns of a sparse matrix do not follow one another")
    # MATLAB may store more places than it uses.
    values, rows = values[: starts[-1]], rows[: starts[-1]]
    if len(rows) != len(values) or (len(rows) and (rows.min() < 0 or rows.max() >= shape[0])):
        raise ValueError(f"the rows of a sparse matrix are not all among its {shape[0]}")
    return scipy.sparse.csc_array((values, rows, starts), shape=shape)
