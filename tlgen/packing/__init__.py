"""Tetris: pack many molecules into a box, close together and without overlap."""
