"""Uses a model: segments tomograms tile by tile, localises particles, scores and reports them."""
