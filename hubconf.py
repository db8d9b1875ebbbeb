"""Models for ``torch.hub``: ``torch.hub.load("/path/to/clone", "part_vitt", source="local")``."""

from partzoo.models.sharing import makers as _makers

dependencies = ["torch", "timm", "huggingface_hub", "safetensors", "PIL", "numpy", "einops"]

globals().update(_makers())
