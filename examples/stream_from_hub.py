"""Read windows from a data set on the Hub, without storing it, and see how well gaps in them are filled.

    python examples/stream_from_hub.py hf://datasets/OWNER/NAME [BATCHES]

Any address that fsspec opens will do, a folder on this machine too.
"""

import itertools
import sys

import torch
from neurt import MaskedSignalCollator, NeurtForMaskedSignalModeling, NeurtProcessor
from neurt.dataset_scripts.window_streams import stream_windows
from neurt.loading import shipped_model
from neurt.masking import model_inputs
from torch.utils.data import DataLoader

address = sys.argv[1]
batches = int(sys.argv[2]) if len(sys.argv) > 2 else 10

processor = NeurtProcessor.from_pretrained(shipped_model())
model = NeurtForMaskedSignalModeling.from_pretrained(shipped_model()).eval()
windows = stream_windows(address, processor, seed=0)
losses = []
for batch in itertools.islice(DataLoader(windows, 32, collate_fn=MaskedSignalCollator()), batches):
    with torch.inference_mode():
        losses.append(float(model(**model_inputs(batch, "cpu"), labels=batch["labels"]).loss))
mean = sum(losses) / len(losses)
print(
    f"{len(losses)} batches: squared error in hidden frames {mean:.2f} times that of straight lines, window by window"
)
