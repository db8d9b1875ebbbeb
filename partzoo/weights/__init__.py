"""Released weights: their records, their files, and where the files are found."""
