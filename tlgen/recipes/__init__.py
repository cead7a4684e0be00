"""Recipes: their keys, their files, and the samples that they expand to."""
