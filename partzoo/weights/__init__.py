"""Released weights: their records, the files that hold them, and where those are found."""
