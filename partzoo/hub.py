"""Save models to folders and Hub repositories, and load them: the public names of :mod:`partzoo.models.sharing`."""

from partzoo.models.sharing import from_pretrained, push_to_hub, save_pretrained

__all__ = ["from_pretrained", "push_to_hub", "save_pretrained"]
