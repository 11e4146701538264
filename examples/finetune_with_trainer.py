"""Fine-tune the encoder to tell groups of animals apart with transformers.Trainer, scored on animals it has not seen.

    python examples/finetune_with_trainer.py BUILD LABEL OUTPUT [MODEL]

BUILD is made by `neurt import`, LABEL is one of its labels. `neurt finetune` does this and more in one command.
"""

import sys

from neurt import NeurtForSequenceClassification, NeurtProcessor
from neurt.dataset_scripts.parquet_build import read_build
from neurt.dataset_scripts.windows import WindowDataset
from neurt.loading import shipped_model
from neurt.masking import collate_windows
from neurt.metrics.subject_classification import subject_classification_scores
from neurt.pipeline_neurt import NeuronSignalClassificationPipeline
from neurt.splits import split_recordings
from transformers import Trainer, TrainingArguments

build, label, output = sys.argv[1:4]
name = sys.argv[4] if len(sys.argv) > 4 else str(shipped_model())

# Whole animals are held out, before any window is cut.
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

arguments = TrainingArguments(
    output,
    num_train_epochs=2,
    per_device_train_batch_size=32,
    per_device_eval_batch_size=128,
    learning_rate=1e-4,
    remove_unused_columns=False,
    save_strategy="no",
    report_to="none",
    seed=0,
)
trainer = Trainer(model, arguments, data_collator=collate_windows, train_dataset=train)
trainer.train()
# The model with its code, the processor and the pipeline; `Trainer.save_model` would leave out the latter two.
NeuronSignalClassificationPipeline(model, processor=processor, device=model.device).save_pretrained(output)

# The animal is the unit: windows are averaged over recordings, recordings over animals.
logits = trainer.predict(test).predictions
found = [test[row] for row in range(len(test))]
names = [[window[key] for window in found] for key in ("labels", "recording_id", "subject_id")]
scores = subject_classification_scores(logits, *names)["subject"]
print(f"{scores['n']} animals held out: accuracy {scores['accuracy']:.2f}, AUC {scores['roc_auc']:.2f}")
