"""Whatever holds an image becomes pixels, and pixels become what a model takes."""
