"""Training: settings, optimiser, loop, checkpoints, validation, the model's card."""
