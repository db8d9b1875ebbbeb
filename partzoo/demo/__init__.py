"""A page for trying partzoo in a browser."""
