"""Images in a folder, or that match a pattern."""

from __future__ import annotations

from partzoo.collections.sources import Listed, Record
from partzoo.collections.storage import WILDCARDS, image_at, is_folder, list_files
from partzoo.images.opening import SUFFIXES


class Folder(Listed):
    """The images below a folder or those that match a pattern, sorted by path, which is also their key."""

    rank = 9  # a pattern of tars is not one of images
    form = "a folder or pattern of images"

    def __init__(self, address: str) -> None:
        found = ((key, file) for key, file in list_files(address).items() if key.lower().endswith(SUFFIXES))
        super().__init__(address, [Record(key, image_at(file)) for key, file in found])

    @classmethod
    def accepts(cls, address: str) -> bool:
        return any(letter in address for letter in WILDCARDS) or is_folder(address)
