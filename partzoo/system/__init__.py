"""The machine: what it has, and how memory is allocated on it."""
