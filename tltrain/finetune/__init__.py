"""Fine-tuning on annotated tomograms."""
