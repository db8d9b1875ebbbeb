"""The machine that partzoo runs on: its hardware, and the allocation of its memory."""
