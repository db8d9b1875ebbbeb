"""Released weights: their records and their files, and how the files are found."""
