"""A program of its own that reads a virtual camera: ``python -m tests.guest.reader DEVICE pyav|opencv PICTURES TIMES``.

It opens the device so many times and reads so many pictures each time; prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from tests.guest.coded import read_colours, read_number


def pyav(device: str, count: int) -> Iterator[tuple[Any, Any]]:
    import av

    with av.open(device, format="v4l2", timeout=60) as container:
        for _, picture in zip(range(count), container.decode(video=0), strict=False):
            yield picture.to_ndarray(format="gray"), picture.to_ndarray(format="rgb24")


def opencv(device: str, count: int) -> Iterator[tuple[Any, Any]]:
    import cv2

    camera = cv2.VideoCapture(device, cv2.CAP_V4L2)
    assert camera.isOpened(), f"OpenCV does not open {device}"
    for _ in range(count):
        good, picture = camera.read()
        assert good, "OpenCV reads nothing"
        yield cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), picture[..., ::-1]
    camera.release()


def main(device: str, how: str, count: str, times: str) -> None:
    indices, delays_ms, waits_ms = [], [], []
    colours: Any = None
    torn = 0
    for _ in range(int(times)):
        began = time.monotonic()
        for number, (grey, rgb) in enumerate({"pyav": pyav, "opencv": opencv}[how](device, int(count))):
            now_ms = int(time.monotonic() * 1000)
            if number == 0:
                waits_ms.append(round((time.monotonic() - began) * 1000))
            try:
                index, stamp_ms = read_number(grey, 0), read_number(grey, 1)
            except ValueError:
                # The driver has two buffers, and this machine may take longer to copy one than a picture lasts.
                torn += 1
                continue
            indices.append(index)
            if stamp_ms is not None:
                delays_ms.append((now_ms - stamp_ms) & 0xFFFFF)
                colours = read_colours(rgb)
                last = rgb
    if len(sys.argv) > 5:
        import cv2

        cv2.imwrite(sys.argv[5], last[..., ::-1])
    seen = {"indices": indices, "torn": torn, "delays_ms": delays_ms, "waits_ms": waits_ms, "colours": colours}
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:5])
