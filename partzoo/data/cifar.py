"""Read CIFAR-10 and CIFAR-100 files in both official versions, Python pickles and plain binary."""

from __future__ import annotations

import io
import pickle
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from partzoo.data.image_sets import ImageSet
from partzoo.data.reading import check_labels, inside, need, read_text
from partzoo.errors import UsageError
from partzoo.files import reading

PIXELS = 3 * 32 * 32

# All globals that a pickled dictionary of arrays needs; Python 2 files refer to numpy.core, newer ones to numpy._core.
_RECONSTRUCT = np.zeros(0).__reduce__()[0]
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return _ALLOWED[module, name]


def read_pickle(file: str | Path) -> dict[bytes, Any]:
    """Read a pickled dictionary of arrays, lists and strings, with bytes as keys, without running code in the file.

    Raises:
        UsageError: the file is damaged, or contains anything else.
    """
    file = Path(file)
    with reading(file, UsageError, "cannot be read as a file of arrays", "download it again from the official page"):
        data = file.read_bytes()
        # Official files have none of protocol 5, whose buffers can make Python print errors of its own.
        for code, value, _ in pickletools.genops(data):
            if code.proto > 4 or (
                code.name == "LONG_BINPUT" and (value or 0) > len(data)
            ):  # a number makes a table as large
                raise pickle.UnpicklingError(f"it has the opcode {code.name} {value!r:.20}")
        found = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
    if not isinstance(found, dict):
        raise UsageError(f"{file} holds a {type(found).__name__}, not a dictionary of arrays: download it again.")
    return {key.encode() if isinstance(key, str) else key: value for key, value in found.items()}


@dataclass(frozen=True)
class Cifar:
    """The files of CIFAR-10 or CIFAR-100, and which of their labels to use.

    Attributes:
        name: name of the protocol, for errors.
        python, binary: folders of the two versions, as in the official archives.
        files: names of each split's pickles; files of the binary version also end in ``.bin``.
        labels: key of the labels in the pickles.
        label_byte, label_bytes: index of the label byte, and number of label bytes before each binary image.
        names: pickle with the names of the classes, its key, and the text file of the binary version.
        get: instructions for the download, for errors.
    """

    name: str
    python: str
    binary: str
    files: dict[str, tuple[str, ...]]
    labels: str
    label_byte: int
    label_bytes: int
    names: tuple[str, str, str]
    get: str

    def load(self, data: str | Path, split: str, limit: int | None = None) -> ImageSet:
        """Read the images and labels of a split, in the order stored in the files (already shuffled).

        Args:
            data: folder of one version, or the folder that contains it.
            split: ``"train"`` or ``"test"``.
            limit: largest number of images; the first are taken.

        Raises:
            UsageError: the split is unknown, or files are missing or damaged.
        """
        if split not in self.files:
            raise UsageError(f"Unknown split {split!r} of {self.name}; the splits are {', '.join(self.files)}.")
        data = Path(data)
        python, binary = (inside(data, folder) for folder in (self.python, self.binary))
        if (binary / f"{self.files[split][0]}.bin").exists():
            need(self.name, binary, [f"{file}.bin" for file in self.files[split]] + [self.names[2]], self.get)
            read, classes = self._binary, read_text(binary / self.names[2]).split()
            files = [binary / f"{file}.bin" for file in self.files[split]]
        else:
            need(self.name, python, [*self.files[split], self.names[0]], self.get)
            with reading(python / self.names[0], UsageError, f"holds no {self.names[1]!r}"):
                classes = [word.decode() for word in read_pickle(python / self.names[0])[self.names[1].encode()]]
            read, files = self._python, [python / file for file in self.files[split]]
        pixels, labels = (np.concatenate(both) for both in zip(*map(read, files), strict=True))
        check_labels(files[0], labels, classes)
        planes = torch.from_numpy(pixels[:limit].reshape(-1, 3, 32, 32))
        return ImageSet.from_pixels(planes, torch.from_numpy(labels[:limit].astype(np.int64)), classes)

    def _python(self, file: Path) -> tuple[np.ndarray, np.ndarray]:
        found = read_pickle(file)
        with reading(file, UsageError, f"holds no {self.labels!r}"):
            pixels, labels = np.asarray(found[b"data"]), np.asarray(found[self.labels.encode()])
        if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != PIXELS or labels.shape != (len(pixels),):
            raise UsageError(f"{file} does not hold rows of {PIXELS} bytes and as many {self.labels}. {self.get}")
        return pixels, labels

    def _binary(self, file: Path) -> tuple[np.ndarray, np.ndarray]:
        row = self.label_bytes + PIXELS
        with reading(file, UsageError):
            found = np.fromfile(file, np.uint8)
        if not len(found) or len(found) % row:
            raise UsageError(f"{file} has {len(found)} bytes, not a multiple of {row}. {self.get}")
        rows = found.reshape(-1, row)
        return rows[:, self.label_bytes :], rows[:, self.label_byte]


def _official(name: str, python: str, binary: str) -> str:
    return (
        f"Download the Python or the binary version of {name} from https://www.cs.toronto.edu/~kriz/cifar.html and "
        f"give the folder that {python}/ or {binary}/ was unpacked into (--data DIR)."
    )


CIFAR10_FILES = Cifar(
    name="cifar-10",
    python="cifar-10-batches-py",
    binary="cifar-10-batches-bin",
    files={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    labels="labels",
    label_byte=0,
    label_bytes=1,
    names=("batches.meta", "label_names", "batches.meta.txt"),
    get=_official("CIFAR-10", "cifar-10-batches-py", "cifar-10-batches-bin"),
)


def cifar100_files(name: str, kind: str) -> Cifar:
    """Return CIFAR-100 with its ``"fine"`` (100 classes) or ``"coarse"`` (20 classes) labels."""
    return Cifar(
        name=name,
        python="cifar-100-python",
        binary="cifar-100-binary",
        files={"train": ("train",), "test": ("test",)},
        labels=f"{kind}_labels",
        label_byte=("coarse", "fine").index(kind),
        label_bytes=2,
        names=("meta", f"{kind}_label_names", f"{kind}_label_names.txt"),
        get=_official("CIFAR-100", "cifar-100-python", "cifar-100-binary"),
    )
