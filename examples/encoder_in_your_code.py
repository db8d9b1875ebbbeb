"""Feature maps of a batch of images from an encoder of the zoo: python examples/encoder_in_your_code.py"""

from pathlib import Path

import torch

import partzoo
from partzoo.images.opening import open_image
from partzoo.images.preprocess import to_tensor

images = Path(__file__).parent / "images"

model = partzoo.load("part-vitn8")  # a torch.nn.Module in evaluation mode, its parameters frozen
images = [open_image(images / name) for name in ("ibis.jpg", "sunflower.jpg")]
batch = torch.stack([to_tensor(image, (96, 128), model.preprocess) for image in images])

with torch.inference_mode():
    last = model.encode(batch).maps()
    middle, late = model.forward_intermediates(batch, [2, 5])
print("encode:", tuple(last.shape), "blocks 2 and 5:", tuple(middle.shape), tuple(late.shape))
