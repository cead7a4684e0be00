"""Training data: samples are chosen, patches are cut, augmented and streamed."""
