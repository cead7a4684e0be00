"""Reports about a training: the live page, the journal, the progress line, the card in words."""
