"""The training loop, its batches, objectives and checkpoints."""
