"""A detector over a PART encoder, on drawn shapes or on COCO: python examples/detection.py [--data coco/ --size 1024]

Mask R-CNN of torchvision over ViTDet's pyramid. The paper's settings (PART, section 8.1, with ViTDet's configuration):
--data coco/ --model part-vitb16 --size 1024 --channels 256 --window 14 --batch 64 --lr 1e-4 --epochs 12
(with weights for part-vitb16, on accelerators).
"""

import argparse
import contextlib
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from pycocotools.coco import COCO
from torchvision import tv_tensors
from torchvision.models.detection import MaskRCNN
from torchvision.transforms import v2

import partzoo
from partzoo.data.annotations import rasterized
from partzoo.evaluate.protocols.coco import COCO_DETECTION, read_truth, results
from partzoo.train.tasks.finetune import layer_rate

LAYER_DECAY, WEIGHT_DECAY = 0.7, 0.1  # ViTDet, ViT-B


def draw_shapes(folder: Path, split: str, count: int) -> None:
    """Draw images of squares and discs into a folder laid out like COCO."""
    draw, images, annotations = np.random.default_rng(len(split)), [], []
    (folder / split).mkdir(parents=True)
    for number in range(1, count + 1):
        canvas = Image.fromarray(draw.integers(90, 160, (96, 96, 3), dtype=np.uint8))
        for left, category in ((4, 1), (50, 7)):
            side, top = draw.integers(24, 40), draw.integers(2, 50)
            angles = np.deg2rad([45, 135, 225, 315] if category == 1 else np.arange(0, 360, 15))
            radius = side / 2 * (2**0.5 if category == 1 else 1)
            outline = np.stack([left + side / 2 + radius * np.cos(angles), top + side / 2 + radius * np.sin(angles)], 1)
            ImageDraw.Draw(canvas).polygon([tuple(point) for point in outline], fill=(230, 60 * (category == 1), 30))
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": 0,
                    "bbox": [int(left), int(top), int(side), int(side)], "area": int(side) ** 2,
                    "segmentation": [outline.ravel().tolist()],
                }
            )  # fmt: skip
        canvas.save(folder / split / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 96, "width": 96})
    categories = [{"id": 1, "name": "square"}, {"id": 7, "name": "disc"}]
    (folder / "annotations").mkdir(exist_ok=True)
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (folder / "annotations" / f"instances_{split}.json").write_text(text)


class CocoImages(torch.utils.data.Dataset):
    """COCO's images with their boxes, masks and labels (from 1), with scale jitter for training."""

    def __init__(self, folder: Path, split: str, size: int) -> None:
        self.folder, self.coco = folder / split, COCO()
        self.coco.dataset = read_truth(folder / "annotations" / f"instances_{split}.json", masks=True)
        with contextlib.redirect_stdout(None):
            self.coco.createIndex()
        self.numbers, self.categories = sorted(self.coco.getImgIds()), sorted(self.coco.getCatIds())
        jitter = [v2.ScaleJitter((size, size), (0.1, 2.0)), v2.RandomCrop((size, size), pad_if_needed=True)]
        jitter += [v2.RandomHorizontalFlip(), v2.SanitizeBoundingBoxes()]
        self.jitter = v2.Compose(jitter if split.startswith("train") else [v2.Identity()])

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict]:
        number = self.numbers[index]
        image = Image.open(self.folder / self.coco.imgs[number]["file_name"]).convert("RGB")
        objects = [each for each in self.coco.imgToAnns[number] if not each["iscrowd"] and min(each["bbox"][2:]) > 0]
        size = (image.height, image.width)
        boxes = torch.tensor([each["bbox"] for each in objects]).reshape(-1, 4)
        masks = np.array([rasterized(each["segmentation"], size) for each in objects], np.uint8).reshape(-1, *size)
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYWH", canvas_size=size),
            "masks": tv_tensors.Mask(masks),
            "labels": torch.tensor([self.categories.index(each["category_id"]) + 1 for each in objects]).long(),
        }
        pixels, target = self.jitter(tv_tensors.Image(v2.functional.pil_to_tensor(image)), target)
        target["boxes"] = v2.functional.convert_bounding_box_format(target["boxes"], new_format="XYXY").float()
        return pixels.float() / 255, target


def main() -> None:
    """Train a detector, run it on the validation images and print its average precision."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with train2017/, val2017/ and annotations/; default: drawn")
    parser.add_argument("--model", default="part-vitn8.tin")
    for name, default in (("size", 96), ("channels", 32), ("window", 0), ("batch", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--epochs", type=int, default=1)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as drawn:
        if chosen.data is None:
            chosen.data = Path(drawn)
            draw_shapes(chosen.data, "train2017", 12)
            draw_shapes(chosen.data, "val2017", 2)
        detect(chosen)


def detect(chosen: argparse.Namespace) -> None:
    """Train and evaluate on the images of ``chosen.data``."""
    train, val = (CocoImages(chosen.data, split, chosen.size) for split in ("train2017", "val2017"))
    pyramid = partzoo.feature_pyramid(
        chosen.model, chosen.channels, positions=chosen.size, window=chosen.window, relative=True, drop_path=0.1
    )
    mean, std = pyramid.preprocess.mean, pyramid.preprocess.std
    sizes = {"min_size": chosen.size, "max_size": chosen.size, "image_mean": mean, "image_std": std}
    detector = MaskRCNN(pyramid, len(train.categories) + 1, **sizes).to(next(pyramid.parameters()).device)
    depth = len(pyramid.encoder.blocks)
    groups = [
        {
            "params": [parameter],
            "factor": layer_rate(name, depth, LAYER_DECAY),
            "weight_decay": WEIGHT_DECAY if parameter.ndim > 1 and "pos_embed" not in name else 0.0,
        }
        for name, parameter in detector.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, lr=chosen.lr)
    loader = torch.utils.data.DataLoader(train, chosen.batch, shuffle=True, drop_last=True, collate_fn=list)
    steps = chosen.epochs * len(loader)
    step, device = 0, next(detector.parameters()).device
    for _ in range(chosen.epochs):
        for batch in loader:
            rate = min(1, (step + 1) / (0.05 * steps)) * 0.1 ** ((step >= 8 / 9 * steps) + (step >= 26 / 27 * steps))
            for group in optimizer.param_groups:
                group["lr"] = chosen.lr * rate * group["factor"]
            images, targets = zip(*batch, strict=True)
            targets = [{name: value.to(device) for name, value in target.items()} for target in targets]
            loss = sum(detector([image.to(device) for image in images], targets).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            print(f"step {step} of {steps}: loss {loss.item():.3f}")
    detector.eval()
    found = []
    with torch.inference_mode():
        for number, (image, _) in zip(val.numbers, val, strict=True):
            found += results(number, detector([image.to(device)])[0], val.categories)
    figures = COCO_DETECTION.average_precision(found, chosen.data)
    print(" ".join(f"{name} {figures[name]:.1f}" for name in ("ap", "ap50", "ap75")))


if __name__ == "__main__":
    main()
