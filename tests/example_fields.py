"""Small imaging fields and the same channels by pandas, for several test files."""

import numpy as np
import pandas as pd
from neurt import NeurtProcessor


def random_field(neurons=12, frames=80, seed=0):
    """Traces float32 (N, T) and positions float32 (N, 2) about a circle: within 60 of each lie two on either side."""
    generator = np.random.default_rng(seed)
    traces = generator.gamma(1.0, size=(neurons, frames)) * generator.uniform(0.1, 50, size=(neurons, 1))
    angles = 2 * np.pi * np.arange(neurons) / neurons
    centroids = 50 * np.stack([np.cos(angles), np.sin(angles)], 1) + generator.uniform(-2, 2, size=(neurons, 2))
    return traces.astype(np.float32), centroids.astype(np.float32)


def row_of_six():
    """Six neurons on a line at 0, 1, 2, 3, 10, 12; with a radius of 3 the first and the fourth lie at the radius."""
    growth = np.where(np.arange(32) == 1, 2.0, 1.0)
    traces = np.array([1, 2, 4, 8, 16, 32])[:, None] * growth
    return traces.astype(np.float32), np.array([[x, 0] for x in (0, 1, 2, 3, 10, 12)], dtype=float)


def channels_of(traces, centroids, missing_neighbours="error", **settings):
    settings = {"neighbour_radius": 60, "radius_unit": "um", **settings}
    return NeurtProcessor(**settings).neighbour_channels(
        traces, centroids, coordinate_unit="um", missing_neighbours=missing_neighbours
    )


def cut(traces, centroids, *, settings=None, **options):
    settings = {"neighbour_radius": 60, "radius_unit": "um", "window_length": 40, **(settings or {})}
    return NeurtProcessor(**settings)(traces, centroids, **{"coordinate_unit": "um", **options})


def pandas_channels(traces, centroids, quantile, neurons):
    """Channels (n, T, 5) of some neurons, one selection per neuron, in float64; NaN without two near and two far."""
    frame = pd.DataFrame(np.asarray(traces, dtype=np.float64).T)
    frame = (frame - frame.min()) / (frame.max() - frame.min())
    positions = pd.DataFrame(np.asarray(centroids, dtype=np.float64), columns=["x", "y"])
    between = {i: np.hypot(positions.x - positions.x[i], positions.y - positions.y[i]) for i in positions.index}
    radius = np.quantile(np.concatenate([between[i][:i] for i in positions.index]), quantile)
    for neuron in neurons:
        others = between[neuron].drop(neuron)
        near, far = (frame[others.index[side]] for side in (others < radius, others > radius))
        if min(near.shape[1], far.shape[1]) < 2:
            yield np.full((len(frame), 5), np.nan)
            continue
        channels = [frame[neuron], near.mean(axis=1), near.std(axis=1), far.mean(axis=1), far.std(axis=1)]
        yield pd.concat(channels, axis=1).to_numpy()


def assert_equal_to_pandas(traces, centroids, neurons, quantile=0.3):
    expected = np.stack(list(pandas_channels(traces, centroids, quantile, neurons)))
    channels = NeurtProcessor(neighbour_radius=quantile).neighbour_channels(traces, centroids)[neurons]
    np.testing.assert_allclose(channels, expected, rtol=0, atol=1e-5)
