"""Bytes: a disk or a bucket, and the arrays that are read from it."""
