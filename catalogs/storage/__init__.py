"""Storage on disks and in buckets, and arrays that are read from it."""
