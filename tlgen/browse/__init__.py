"""``tlgen browse``: show a corpus as a local, read-only web page."""
