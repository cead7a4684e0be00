"""The content of a box: molecules and decorations, with their labels and pictures."""
