"""Training data: choose samples; cut, augment and stream patches."""
