"""A few tiny images, as every kind of source."""

import pytest
from helpers.image_sets import encoded

COUNT = 6


@pytest.fixture(scope="session")
def contents():
    """Encoded images by the key that they have in a folder."""
    return {f"{'ab'[number % 2]}/{number}.png": encoded(number) for number in range(COUNT)}


@pytest.fixture(scope="session")
def images(tmp_path_factory, contents):
    """A folder of images."""
    folder = tmp_path_factory.mktemp("collection") / "images"
    for key, data in contents.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)
    (folder / "notes.txt").write_text("not an image")
    (folder / "a" / ".hidden.png").write_bytes(encoded(9))
    return folder
