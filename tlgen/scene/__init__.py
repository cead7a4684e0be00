"""What stands where in a box: molecules and decorations, with their labels and pictures."""
