"""Learn parts from images, save them, and find the same parts in other images: python examples/one_vocabulary.py"""

from pathlib import Path

import partzoo

images = sorted((Path(__file__).parent / "images").glob("*.jpg"))

partzoo.fit_parts(images, k=4).save("photographs.parts.safetensors")

vocabulary = partzoo.PartVocabulary.load("photographs.parts.safetensors")
for image in images:
    parts = partzoo.discover_parts(image, vocabulary=vocabulary)
    parts.save(f"{image.stem}-parts.png")
    print(image.stem, "has parts", *parts.present)
