"""The engine: options, data, batches, the loop and its checkpoints."""
