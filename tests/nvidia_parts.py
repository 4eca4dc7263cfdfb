"""A stand-in for NVIDIA's driver, decoder and encoder, built from the C files here, and programs that run with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.codec.hwaccel import hwdevices_available
from numpy.typing import NDArray

_LIBRARIES = {
    "libcuda.so.1": "stand_in_nvidia.c",
    "libnvcuvid.so.1": "stand_in_nvidia.c",
    "libnvidia-encode.so.1": "stand_in_nvenc.c",
}
COMPILER = shutil.which("cc") or shutil.which("gcc")
needs_stand_in = pytest.mark.skipif(
    COMPILER is None or sys.platform != "linux" or "cuda" not in hwdevices_available(),
    reason="the stand-in for NVIDIA's driver needs Linux, a C compiler and FFmpeg with CUDA",
)
# Reads a source to its end, and tells what came: argv are the URL, a file for the planes, and one hwaccel or more.
_READER = """
import json, sys
import numpy as np
from streamseg.errors import StreamsegError
from streamseg.sources import open_source
url, file, *asked = sys.argv[1:]
all_told, all_planes = [], {}
for hwaccel in asked:
    told, planes = {}, []
    try:
        source = open_source(url, hwaccel=hwaccel)
        told.update(decoder=source.info.decoder, original_wh=source.info.original_wh)
        try:
            while (frame := source.read()) is not None:
                planes.append(frame.planes)
        finally:
            told.update(notices=list(source.notices), counts=dict(source.counts))
            source.close()
    except StreamsegError as error:
        told.update(error=str(error), kind=type(error).__name__)
    all_told.append(told)
    all_planes[hwaccel] = np.array(planes)
np.savez(file, **all_planes)
print(json.dumps(all_told))
"""


def build(folder: Path) -> Path:
    """The libraries, in a folder for LD_LIBRARY_PATH."""
    assert COMPILER is not None
    for name, source in _LIBRARIES.items():
        path = str(Path(__file__).with_name(source))
        command = [COMPILER, "-O1", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), path]
        subprocess.run(command, check=True)
    return folder


def run(libraries: Path, *words: str, fails: str = "") -> subprocess.CompletedProcess[str]:
    """Python with `words`, where the stand-in is the driver. `fails` is what it fails at."""
    where = {**os.environ, "LD_LIBRARY_PATH": str(libraries), "STAND_IN_FAILS": fails}
    root = Path(__file__).parent.parent
    return subprocess.run([sys.executable, *words], env=where, cwd=root, capture_output=True, text=True, timeout=300)


def read(
    libraries: Path, scratch: Path, url: str, *asked: str, fails: str = ""
) -> list[tuple[dict[str, Any], NDArray[np.uint8]]]:
    """For each hwaccel that is asked for: what reading told, and (n, H * 3 / 2, W) uint8, the planes of all frames."""
    into = scratch / "planes.npz"
    done = run(libraries, "-c", _READER, url, str(into), *asked, fails=fails)
    assert done.returncode == 0, done.stderr
    with np.load(into) as planes:
        return [(told, planes[hwaccel]) for told, hwaccel in zip(json.loads(done.stdout), asked, strict=True)]


def write_clip(
    path: Path, encoder: str, size_wh: tuple[int, int], pixel_format: str = "yuv420p", frames: int = 4, **options: str
) -> None:
    """A clip without B-frames, so that its pictures are decoded in the order in which they are shown."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(encoder, rate=Fraction(25), options={"bf": "0", **options})
        stream.width, stream.height = size_wh
        stream.pix_fmt = pixel_format
        for index in range(frames):
            picture = av.VideoFrame(*size_wh, "yuv420p")
            for plane in picture.planes:
                plane.update(bytes([60 + 20 * index % 160]) * plane.buffer_size)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def expected_planes(number: int, width: int, height: int, rows_of_chroma: int | None = None) -> NDArray[np.uint8]:
    """(H * 3 / 2, W) uint8: what the stand-in shows as its picture `number`, padded to even sides.

    `rows_of_chroma` is the number of them that a download brings; the last one stands for those behind.
    """
    y, x = np.mgrid[:height, :width]
    luma = (x + 2 * y + 5 * number) % 256
    rows = rows_of_chroma or (height + 1) // 2
    v, u = np.mgrid[:rows, : (width + 1) // 2]
    blue, red = (3 * u + v + 5 * number) % 256, (u + 3 * v + 5 * number) % 256
    more = ((0, (height + 1) // 2 - rows), (0, 0))
    even = np.pad(luma, ((0, height % 2), (0, width % 2)), mode="edge")
    flat = [even.ravel(), *(np.pad(plane, more, mode="edge").ravel() for plane in (blue, red))]
    return np.concatenate(flat).astype(np.uint8).reshape(-1, even.shape[1])
