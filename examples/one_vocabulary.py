"""Learn parts from pictures, keep them, find the same parts in others: python examples/one_vocabulary.py"""

from pathlib import Path

import partzoo

pictures = sorted((Path(__file__).parent / "images").glob("*.jpg"))

partzoo.fit_parts(pictures, k=4).save("photographs.parts.safetensors")

vocabulary = partzoo.PartVocabulary.load("photographs.parts.safetensors")
for picture in pictures:
    parts = partzoo.discover_parts(picture, vocabulary=vocabulary)
    parts.save(f"{picture.stem}-parts.png")
    print(picture.stem, "has parts", *parts.present)
