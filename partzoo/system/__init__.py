"""The machine: its hardware, and how memory is allocated."""
