"""What a run gives: the report, pictures, and lists for other programs."""
