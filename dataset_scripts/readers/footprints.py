"""Where neurons are: the centroids of their spatial footprints."""

from collections.abc import Iterable

import numpy as np
import scipy.sparse

from ..wording import cannot_read


def centroids_of_traces(
    footprints: np.ndarray | scipy.sparse.csc_array,
    size: tuple[int, int],
    shape: tuple[int, int],
    name: str,
    file: str,
) -> np.ndarray:
    """Return the centroids of footprints that belong to traces.

    Args:
        footprints: As `column_centroids` takes them.
        size: Height and width in pixels.
        shape: N and T, the shape of the traces.
        name: What the file calls the footprints.
        file: The recording, in messages.

    Returns:
        As `image_centroids`.

    Raises:
        ValueError: If there are more or fewer footprints than traces, or as `column_centroids` does.
    """
    if footprints.shape[1] != shape[0]:
        turned = "; the traces look transposed" if footprints.shape[1] == shape[1] else ""
        got = f"shape {footprints.shape}{turned}"
        raise ValueError(f"{file}: expected {name} with a column for each of {shape[0]} traces, got {got}")
    try:
        return column_centroids(footprints, *size)
    except ValueError as error:
        raise cannot_read(file, f"footprints in {name}", error) from error


def column_centroids(footprints: np.ndarray | scipy.sparse.csc_array, height: int, width: int) -> np.ndarray:
    """Return the centroids of footprints whose pixels stand in Fortran order, as MATLAB and CaImAn lay them out.

    Args:
        footprints: Weights (height * width, N), dense or sparse by columns; row r is the pixel x = r // height,
            y = r % height.
        height: Number of pixels down (d1).
        width: Number of pixels across (d2).

    Returns:
        As `image_centroids`.

    Raises:
        ValueError: If the pixels do not fill the image, or as `image_centroids` does.
    """
    if height <= 0 or width <= 0 or footprints.shape[0] != height * width:
        raise ValueError(f"expected footprints of {height} x {width} pixels, got {footprints.shape[0]} pixels")
    if not scipy.sparse.issparse(footprints):
        return image_centroids(column.reshape((width, height)).T for column in footprints.T)
    centroids = np.full((footprints.shape[1], 2), np.nan)
    for roi, (start, end) in enumerate(zip(footprints.indptr, footprints.indptr[1:], strict=False)):
        x, y = np.divmod(footprints.indices[start:end].astype(np.int64), height)
        centroids[roi] = _centroid(x, y, footprints.data[start:end])
    return centroids


def image_centroids(images: Iterable[np.ndarray]) -> np.ndarray:
    """Return the centroids of footprints given one by one as images.

    Args:
        images: Weights (height, width) of one neuron each. Those below 0, where interpolation overshot, count as 0.

    Returns:
        Positions (x, y) in pixels, float64 of shape (N, 2): the mean of the 0-based pixel indices, weighted. NaN for
        a footprint without weight.

    Raises:
        ValueError: If weights are not finite, or no numbers.
    """
    centroids = []
    for image in images:
        if image.dtype.kind not in "biuf":
            raise ValueError(f"expected numbers in footprints, got {image.dtype}")
        # NaN is not 0 either, and is found below.
        y, x = np.nonzero(image)
        centroids.append(_centroid(x, y, image[y, x]))
    return np.reshape(centroids, (-1, 2)).astype(np.float64)


def _centroid(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    weights = weights.astype(np.float64)
    if not np.isfinite(weights).all():
        raise ValueError("expected finite weights in footprints, got NaN or infinite ones")
    weights = np.maximum(weights, 0)
    total = weights.sum()
    return (x @ weights / total, y @ weights / total) if total > 0 else (np.nan, np.nan)
