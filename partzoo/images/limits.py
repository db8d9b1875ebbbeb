"""Default limits of what is read. They import nothing, so that the command line can show them at once."""

MAX_PIXELS = 178_956_970  # from here on Pillow raises an error, by default
MAX_BYTES = 512 * 2**20  # an uncompressed image of so many pixels
