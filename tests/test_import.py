import json
import subprocess
import sys

import partzoo

HEAVY = ("torch", "timm", "torchvision", "matplotlib", "huggingface_hub", "numpy", "PIL")


def run(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    return ran.stdout


def test_importing_is_quiet_and_imports_nothing_heavy():
    found = run(f"import partzoo, sys, json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))")
    assert json.loads(found) == []


def test_importing_takes_less_than_a_tenth_of_a_second():
    code = "import time; t = time.process_time(); import partzoo; print(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.1


def test_every_public_name_is_there():
    assert set(partzoo.__all__) <= set(dir(partzoo))
    for name in partzoo.__all__:
        assert getattr(partzoo, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(partzoo, "herons")


def test_inference_does_not_import_training_or_evaluation():
    code = (
        "import partzoo, numpy, sys\n"
        "partzoo.discover_parts(numpy.zeros((32, 32, 3), 'uint8'), k=2, model='toy-vit')\n"
        "names = ('partzoo.train', 'partzoo.evaluate', 'partzoo.bench', 'matplotlib', 'accelerate')\n"
        "print([name for name in names if name in sys.modules])"
    )
    assert run(code).strip() == "[]"
