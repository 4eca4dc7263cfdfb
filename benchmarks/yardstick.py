"""How fast this machine is, in units of the one that the project's budgets were measured on.

Plain library calls at 720p whose times on that machine are known (two Xeon cores, the same library versions, one thread
each). The median of the ratios says what a budget of so many milliseconds there comes to here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np

# Milliseconds on the reference machine; of a range, the middle.
REFERENCE_MS = {
    "GaussianBlur(55) of BGR": 18.0,
    "float32 blend of BGR in numpy": 7.4,
    "float64 blend of BGR in numpy": 18.0,
    "DIS flow 320x180": 0.5,
    "bgr24 to yuv420p in PyAV": 1.9,
    "decode": 1.8,
    "libx264 ultrafast": 3.5,
}
_FRAMES = 100


def measure(clip: Path, folder: Path) -> dict[str, float]:
    """CPU milliseconds of each call here, on a 720p clip."""
    cv2.setNumThreads(1)
    random = np.random.default_rng(0)
    image = cv2.GaussianBlur(random.integers(0, 256, (720, 1280, 3), np.uint8), (0, 0), 3)
    other = image[::-1].copy()
    single = random.random((720, 1280, 1), np.float32)
    double = single.astype(np.float64)
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (320, 180))
    moved = np.roll(small, 2, 1)
    picture = av.VideoFrame.from_ndarray(image, format="bgr24")
    found = {
        "GaussianBlur(55) of BGR": _cpu_ms(lambda: cv2.GaussianBlur(image, (55, 55), 0)),
        "float32 blend of BGR in numpy": _cpu_ms(lambda: (image * single + other * (1 - single)).astype(np.uint8)),
        "float64 blend of BGR in numpy": _cpu_ms(lambda: (image * double + other * (1 - double)).astype(np.uint8)),
        "DIS flow 320x180": _cpu_ms(lambda: flow.calc(small, moved, None)),
        "bgr24 to yuv420p in PyAV": _cpu_ms(lambda: picture.reformat(format="yuv420p")),
    }
    for _ in range(2):
        with av.open(str(clip)) as source, av.open(str(folder / "yardstick.mkv"), "w") as sink:
            video = source.streams.video[0]
            video.thread_count = 1
            stream = sink.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
            stream.options, stream.thread_count = {"preset": "ultrafast"}, 1
            decoding, encoding, frames = 0.0, 0.0, source.decode(video)
            count = 0
            # One frame at a time: to keep them all would cost more in page faults than the decoder takes.
            while count < _FRAMES:
                began = time.process_time()
                frame = next(frames, None)
                decoded = time.process_time()
                if frame is None:
                    break
                sink.mux(stream.encode(frame))
                decoding += decoded - began
                encoding += time.process_time() - decoded
                count += 1
            began = time.process_time()
            sink.mux(stream.encode(None))
            encoding += time.process_time() - began
            found["decode"], found["libx264 ultrafast"] = 1e3 * decoding / count, 1e3 * encoding / count
    return found


def factor(found: dict[str, float]) -> float:
    """How many times slower this machine is: the median of the ratios."""
    return statistics.median(found[name] / REFERENCE_MS[name] for name in REFERENCE_MS)


def factors(found: dict[str, float]) -> tuple[float, float, float]:
    """How many times slower this machine decodes, works on pixels (the median of those calls) and encodes."""
    ratios = {name: found[name] / REFERENCE_MS[name] for name in REFERENCE_MS}
    decode, encode = ratios.pop("decode"), ratios.pop("libx264 ultrafast")
    return decode, statistics.median(ratios.values()), encode


def _cpu_ms(call: Callable[[], object], times: int = 15) -> float:
    call()
    spent = []
    for _ in range(times):
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)
    return 1e3 * statistics.median(spent)
