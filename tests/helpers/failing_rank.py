"""``partzoo`` in a process whose second batch cannot be read if it is rank 1."""

import os

from partzoo.cli import main
from partzoo.data.image_sets import ImageSet
from partzoo.errors import ImageError

draw, drawn = ImageSet.draw, []


def failing(self, indices, seed):
    drawn.append(indices)
    if len(drawn) == 2 and os.environ["RANK"] == "1":
        raise ImageError("None of the 24 images can be read.")
    return draw(self, indices, seed)


ImageSet.draw = failing
main(prog_name="partzoo")
