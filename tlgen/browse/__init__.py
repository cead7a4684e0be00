"""``tlgen browse``: a corpus as a local web page, read only."""
