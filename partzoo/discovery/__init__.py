"""Part discovery, with one file for each step from an image to its parts."""
