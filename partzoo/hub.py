"""Save models to folders and Hub repositories, and load them.

The public names of :mod:`partzoo.models.sharing` and :mod:`partzoo.models.publishing`.
"""

from partzoo.models.publishing import planned, publish, save_released
from partzoo.models.sharing import from_pretrained, push_to_hub, save_pretrained

__all__ = ["from_pretrained", "planned", "publish", "push_to_hub", "save_pretrained", "save_released"]
