"""Default limits on image sizes. This module imports nothing, so the command line can show the limits at once."""

MAX_PIXELS = 178_956_970  # Pillow's own default for raising an error
MAX_BYTES = 512 * 2**20  # size of an uncompressed image with that many pixels
