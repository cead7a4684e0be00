"""What the commands of tlgen do, without the parsing."""
