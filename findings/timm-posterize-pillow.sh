#!/usr/bin/env bash
# timm 1.0.31 with Pillow 13.0.0, Python 3.11, Linux: RandAugment with increasing severity, as DeiT uses it
# ("rand-m9-mstd0.5-inc1"), raises a ValueError for some images. At magnitude 10 its PosterizeIncreasing keeps 0 bits, and
# Pillow demands 1 to 8. With mstd0.5 the magnitude reaches 10 in about one draw of forty, so that training ends after
# some hundred images. One would expect a black image. (timm's module is loaded by itself, as it needs no torch.)
# Observed:
#   4 bits at magnitude 0, 1 bits at magnitude 9, 0 bits at magnitude 10: bits must be between or equal to 1 and 8
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-deps timm==1.0.31 pillow==13.0.0 numpy==2.4.6
cd "$place"
cat >script.py <<'END'
import importlib.util
from pathlib import Path
from PIL import Image

file = Path(importlib.util.find_spec("timm").origin).parent / "data" / "auto_augment.py"
spec = importlib.util.spec_from_file_location("auto_augment", file)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
image, said = Image.new("RGB", (8, 8), (200, 100, 50)), []
for magnitude in (0, 9, 10):
    operation = module.AugmentOp("PosterizeIncreasing", prob=1.0, magnitude=magnitude)
    (bits,) = operation.level_fn(magnitude, {})
    said.append(f"{bits} bits at magnitude {magnitude}")
    try:
        operation(image)
    except ValueError as error:
        said[-1] += f": {error}"
print(", ".join(said))
END
seen=$(venv/bin/python script.py)
expected="4 bits at magnitude 0, 1 bits at magnitude 9, 0 bits at magnitude 10: bits must be between or equal to 1 and 8"
if [ "$seen" != "$expected" ]; then echo "It has changed: $seen"; exit 1; fi
