#!/usr/bin/env bash
# torchvision 0.21.0 with PyAV 18.1.0, on Linux with Python 3.11: importing torchvision changes how PyAV behaves for the
# whole process. PyAV holds back FFmpeg's messages by default (the level is None). Where PyAV is installed, torchvision
# sets the level to ERROR as it is imported, so FFmpeg writes to stderr what PyAV raises as an exception anyway: opening a
# text file prints "moov atom not found" or the like, beside the error. torchvision 0.29.1 does not do so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
source "$place/venv/bin/activate"
export PIP_DISABLE_PIP_VERSION_CHECK=1
cat > "$place/levels.py" <<'PYTHON'
import av

before = av.logging.get_level()
import torchvision

print(torchvision.__version__.partition("+")[0], before, av.logging.get_level(), av.logging.ERROR)
PYTHON
for versions in "torch==2.6.0 torchvision==0.21.0" "torch==2.14.1 torchvision==0.29.1"; do
    # shellcheck disable=SC2086
    pip install --quiet $versions numpy==2.2.6 av==18.1.0
    python "$place/levels.py"
done | tee "$place/levels.txt"
expected="0.21.0 None 16 16
0.29.1 None None 16"
[ "$(cat "$place/levels.txt")" = "$expected" ] || { echo "This has changed." >&2; exit 1; }
