"""The same as finetune_with_trainer.py with a loop of one's own and Accelerate, on one process or several.

python examples/finetune_with_accelerate.py BUILD LABEL OUTPUT [MODEL]
accelerate launch examples/finetune_with_accelerate.py BUILD LABEL OUTPUT [MODEL]
"""

import sys

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from neurt import NeurtForSequenceClassification, NeurtProcessor
from neurt.dataset_scripts.parquet_build import read_build
from neurt.dataset_scripts.windows import WindowDataset
from neurt.loading import shipped_model
from neurt.masking import collate_windows, model_inputs
from neurt.metrics.subject_classification import subject_classification_scores
from neurt.pipeline_neurt import NeuronSignalClassificationPipeline
from neurt.splits import split_recordings
from torch.utils.data import DataLoader

build, label, output = sys.argv[1:4]
name = sys.argv[4] if len(sys.argv) > 4 else str(shipped_model())
accelerator = Accelerator()
set_seed(0)

recordings = list(read_build(build))
split = split_recordings(recordings, label=label, test_fraction=0.3, seed=0)
classes = sorted({recording.labels[label] for recording in recordings})
label2id = {value: number for number, value in enumerate(classes)}

processor = NeurtProcessor.from_pretrained(name)
train, test = (
    WindowDataset(split.recordings(recordings, part), processor, label=label, label2id=label2id)
    for part in ("train", "test")
)
model = NeurtForSequenceClassification.from_pretrained(name, label2id=label2id, id2label=dict(enumerate(classes)))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
model, optimizer, train_loader, test_loader = accelerator.prepare(
    model,
    optimizer,
    DataLoader(train, 32, shuffle=True, collate_fn=collate_windows),
    DataLoader(test, 128, collate_fn=collate_windows),
)

model.train()
for epoch in range(2):
    for batch in train_loader:
        loss = model(**model_inputs(batch, accelerator.device), labels=batch["labels"]).loss
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    accelerator.print(f"epoch {epoch + 1}: last loss {loss.item():.3f}")

model.eval()
rows = []
for batch in test_loader:
    with torch.inference_mode():
        logits = model(**model_inputs(batch, accelerator.device)).logits
    mine = list(
        zip(logits.tolist(), batch["labels"].tolist(), batch["recording_id"], batch["subject_id"], strict=True)
    )
    rows += accelerator.gather_for_metrics(mine, use_gather_object=True)
scores = subject_classification_scores(*map(list, zip(*rows, strict=True)))["subject"]
accelerator.print(f"{scores['n']} animals held out: accuracy {scores['accuracy']:.2f}, AUC {scores['roc_auc']:.2f}")
if accelerator.is_main_process:
    # The model with its code, the processor and the pipeline.
    model = accelerator.unwrap_model(model)
    NeuronSignalClassificationPipeline(model, processor=processor, device=model.device).save_pretrained(output)
