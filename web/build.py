"""Build the page that finds parts in a browser: ``python web/build.py -o FOLDER``; see docs/demo.md.

The programs are exported with partzoo, and ONNX Runtime Web is taken from the npm registry by ``npm pack``.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import importlib.resources
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx

import partzoo
from partzoo.demo.work import SIDE
from partzoo.discovery.labeller import DOUBTFUL
from partzoo.export.export import export_model
from partzoo.features import DEFAULT_MODEL
from partzoo.parts.drawing import palette
from partzoo.parts.formats import FORMAT

HERE = Path(__file__).parent
PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
MOST_BYTES = 25_000_000
WORKER = ("clustering.js", "resizing.js", "worker.js")
PAGE = ("index.html", "page.css", "page.js", "drawing.js", "png.js", "offline.js")


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the page that finds parts in a browser.")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--runtime", type=Path, help=f"{PACKAGE}-{VERSION}.tgz; 'npm pack' gets it by default")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        size = build(asked.out, asked.runtime or fetched(Path(place)), exported(Path(place)))
    print(f"{size / 1e6:.1f} MB. Written: {asked.out / 'index.html'}")


def fetched(place: Path) -> Path:
    """Download the package of ONNX Runtime Web with npm into a folder, and return its file."""
    if (npm := shutil.which("npm")) is None:
        raise SystemExit("npm is not installed: install Node.js, or pass the package's file as --runtime.")
    subprocess.run([npm, "pack", "--silent", f"{PACKAGE}@{VERSION}"], cwd=place, check=True, stdout=subprocess.DEVNULL)
    return next(place.glob("*.tgz"))


def exported(place: Path) -> dict[str, bytes]:
    """Export the programs of the default, and return the content of each file by its task."""
    described = export_model(None, place / "descriptors.onnx", task="descriptors", resize=False)
    labelled = export_model(DEFAULT_MODEL, place / "labels.onnx", task="labels")
    return {"descriptors": described.read_bytes(), "labels": labelled.read_bytes()}


def build(out: Path, package: Path, programs: Mapping[str, bytes]) -> int:
    """Write the page's folder and return its size in bytes.

    Args:
        out: folder to write.
        package: file of the npm package.
        programs: ONNX files by task.
    """
    runtime = unpacked(package)
    worker = [runtime["ort.wasm.min.js"], *((HERE / name).read_bytes() for name in WORKER)]
    packed = {
        "worker.js": b"\n".join(worker),
        "runtime.mjs": runtime["ort-wasm-simd-threaded.mjs"],
        "runtime.wasm": runtime["ort-wasm-simd-threaded.wasm"],
        **{f"{task}.onnx": content for task, content in programs.items()},
    }
    files = {name: (HERE / name).read_bytes() for name in PAGE}
    files |= {f"packed/{name}.js": script_of(name, content) for name, content in packed.items()}
    files |= licences()
    files["about.js"] = about(files, list(packed), programs)
    size = sum(map(len, files.values()))
    if size > MOST_BYTES:
        raise SystemExit(f"The page has {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}.")
    for name, content in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return size


def unpacked(package: Path) -> dict[str, bytes]:
    """Return the files of the npm package's ``dist`` folder by name, after checking that it is the expected package."""
    content = package.read_bytes()
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != SHA512:
        raise SystemExit(f"{package} is not {PACKAGE} {VERSION}: its SHA-512 differs.")
    names = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
    with tarfile.open(package) as archive:
        return {name: archive.extractfile(f"package/dist/{name}").read() for name in names}


def script_of(name: str, content: bytes) -> bytes:
    """Return a script that defines a file's content: browsers let a page on disk load scripts, but no other files."""
    text = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    return f"packed[{json.dumps(name)}] = '{text}';\n".encode()


def licences() -> dict[str, bytes]:
    """Return the licences of partzoo and of ONNX Runtime; the npm package has none, the Python package does."""
    runtime = importlib.resources.files("onnxruntime")
    return {
        "licences/partzoo.txt": (HERE.parent / "LICENSE").read_bytes(),
        "licences/onnxruntime.txt": (runtime / "LICENSE").read_bytes(),
        "licences/onnxruntime-third-parties.txt": (runtime / "ThirdPartyNotices.txt").read_bytes(),
    }


def about(files: Mapping[str, bytes], packed: list[str], programs: Mapping[str, bytes]) -> bytes:
    """Return the script that defines what the page needs to know of partzoo, of the programs and of its files."""
    facts = {each.key: each.value for each in onnx.load_from_string(programs["descriptors"]).metadata_props}
    clustering = json.loads(facts["clustering"])
    known = {
        "version": partzoo.__version__,
        "runtime": VERSION,
        "models": [f"{model['name']} ({model['licence']}; {model['terms']})" for model in json.loads(facts["models"])],
        "clustering": clustering,
        "sizes": json.loads(facts["sizes"]),
        "colours": palette(clustering["most"]).tolist(),
        "doubtful": DOUBTFUL,
        "side": SIDE,
        "format": FORMAT,
        "packed": packed,
        "files": ["./", "about.js", *files],
        "digest": hashlib.sha256(b"".join(files.values())).hexdigest(),
    }
    return f'"use strict";\n\nconst ABOUT = {json.dumps(known)};\n'.encode()


if __name__ == "__main__":
    main()
