"""Hide ten frames of every neuron and let a pretrained model fill them: python examples/fill_a_gap.py [MODEL]"""

import sys

import numpy as np
import torch
from transformers import AutoModelForPreTraining, AutoProcessor

name = sys.argv[1] if len(sys.argv) > 1 else "."  # the root of this repository is a model folder
processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
model = AutoModelForPreTraining.from_pretrained(name, trust_remote_code=True).eval()

rng = np.random.default_rng(0)  # made-up data: 20 neurons at random places that follow one slow wave, in noise
traces = np.sin(np.arange(600) / 12) + 0.3 * rng.standard_normal((20, 600))
windows = processor(traces, rng.uniform(0, 300, (20, 2)), sampling_rate=5.0, coordinate_unit="um")
hidden = torch.zeros(windows["input_values"].shape[:2], dtype=torch.bool)
hidden[:, 50:60] = True
with torch.inference_mode():
    filled = model(**windows, bool_masked_pos=hidden).reconstruction[:, 50:60, 0]
own = windows["input_values"][:, :, 0]
lines = own[:, 49:50] + (own[:, 60:61] - own[:, 49:50]) * torch.arange(1, 11) / 11
for name, guess in {"model": filled, "straight lines": lines}.items():
    error = (guess - own[:, 50:60]).square().mean().sqrt()
    print(f"{name}: root mean squared error {error:.3f} of each neuron's range, {len(own)} windows")
