"""Tetris: many molecules in a box, close together and nowhere in each other."""
