"""A training as people see it: the live page, the journal, the progress line, the card in words."""
