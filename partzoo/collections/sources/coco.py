"""Images that a COCO dataset lists."""

from __future__ import annotations

from partzoo.collections.sources import Listed, Record
from partzoo.collections.storage import exists, folder_of, image_at, joined, opened
from partzoo.errors import UsageError, cause_of
from partzoo.files import parse_json


class Coco(Listed):
    """The images of a COCO dataset in its order, by ``file_name``.

    Names are relative to the dataset's folder, the folder above, or ``images`` in either: the first of these that has
    the first image.
    """

    form = "a COCO dataset (.json)"

    def __init__(self, address: str) -> None:
        try:
            with opened(address) as file:
                names = [image["file_name"] for image in parse_json(file.read())["images"]]
            if not all(isinstance(name, str) and name for name in names):
                raise ValueError("a file_name is not a name")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{address} is not a COCO dataset ({cause_of(error)}).") from error
        base = _base(folder_of(address), names[0]) if names else ""
        super().__init__(address, [Record(name, image_at(joined(base, name))) for name in names])

    @classmethod
    def accepts(cls, address: str) -> bool:
        return address.lower().endswith(".json")


def _base(folder: str, name: str) -> str:
    above = folder_of(folder)
    places = [folder, above, joined(folder, "images"), joined(above, "images")]
    return next((place for place in places if exists(joined(place, name))), folder)
