"""Released weights: their records, their files, and the search for the files."""
