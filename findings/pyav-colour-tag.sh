#!/usr/bin/env bash
# PyAV 18.1.0, on Linux with Python 3.11: a red frame is encoded without loss (H.264, 4:4:4) into a stream whose
# codec_context.colorspace is BT.709. The encoder's conversion from RGB ignores this and uses BT.601, but the file states
# BT.709, so every reader, also PyAV, gets other colours: (200, 40, 60) comes back as (213, 56, 58). One would expect the
# colours back. With frame.reformat(format="yuv444p", dst_colorspace="ITU709") before encoding they come back.
# Observed: 213 56 58 / 199 40 61
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
cd "$place"
cat > colours.py <<'PYTHON'
import av
import numpy as np


def back(reformat):
    with av.open("red.mp4", "w") as file:
        stream = file.add_stream("libx264", rate=10, options={"crf": "0"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv444p"
        stream.codec_context.colorspace = 1  # BT.709
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), (200, 40, 60), np.uint8), format="rgb24")
        if reformat:
            frame = frame.reformat(format="yuv444p", dst_colorspace="ITU709")
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with av.open("red.mp4") as file:
        return " ".join(map(str, next(file.decode(video=0)).to_ndarray(format="rgb24")[0, 0]))


print(back(False), "/", back(True))
PYTHON
seen=$(venv/bin/python colours.py)
if [ "$seen" != "213 56 58 / 199 40 61" ]; then echo "It has changed: $seen"; exit 1; fi
