"""The machine that partzoo runs on: its hardware, and how it allocates memory."""
