"""Part discovery: one file for each step from a picture to its parts."""
