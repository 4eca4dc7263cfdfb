"""The loops that people write themselves, as yardsticks: predict, GaussianBlur, np.where, a video file.

    PYTHON bench_peer.py ultralytics|mediapipe|rvm CLIP --out OUT.mp4 [--model FILE] [--threads N] [--masks FOLDER]

Runs in the peer's own interpreter, so nothing of streamseg is imported. Prints one JSON document: frames, wall and CPU
seconds from the first frame read to the end of the file, after three frames of warming up, and versions. `--threads` is
OpenCV's; ultralytics sets it to one when it is imported, which is undone. All write with libx264 ultrafast where the
interpreter has PyAV, else with OpenCV's own writer.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Started as a script, this folder comes first, and its modules are not what others mean by their names.
if __name__ == "__main__":
    sys.path.pop(0)

import cv2
import numpy as np

Picture = Any  # (H, W, 3) uint8 BGR; the peer's numpy may be too old for the types of ours
Opacity = Any  # (H, W) float32 in [0, 1]

_WARM_UP_FRAMES = 3


def import_ultralytics(*, fast_nms: bool = False) -> Any:
    """The ultralytics package; where torchvision is missing or broken, a stand-in takes its place.

    Ultralytics wants torchvision's version at import and its `ops.nms` in predict, nothing else. The stand-in has
    ultralytics' own suppression in pure torch, or with `fast_nms`, where time is measured, OpenCV's, which is no slower
    than torchvision's.
    """
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        real = importlib.metadata.version

        def version(distribution_name: str) -> str:
            return "0.28.0" if distribution_name == "torchvision" else real(distribution_name)

        importlib.metadata.version = version
        package: Any = types.ModuleType("torchvision")
        package.__version__ = "0.28.0"
        package.ops = types.ModuleType("torchvision.ops")

        def nms(boxes: Any, scores: Any, iou_threshold: float) -> Any:
            if fast_nms:
                import torch

                corners = boxes.double().numpy()
                sides: Any = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
                kept = cv2.dnn.NMSBoxes(sides, scores.numpy(), 0.0, iou_threshold)
                return torch.from_numpy(np.asarray(kept, np.int64))
            from ultralytics.utils.nms import TorchNMS

            return TorchNMS.nms(boxes, scores, iou_threshold)

        package.ops.nms = nms
        sys.modules["torchvision"] = package
        sys.modules["torchvision.ops"] = package.ops
    import ultralytics

    return ultralytics


def _ultralytics(model: str) -> Callable[[Picture], Opacity]:
    """People by any network that ultralytics opens, at the size it was exported with."""
    package = import_ultralytics(fast_nms=True)
    package.utils.LOGGER.setLevel("ERROR")
    network = package.YOLO(model, task="segment")
    options = {"imgsz": _exported_hw(Path(model)), "classes": [0], "device": "cpu", "verbose": False}

    def opacity(frame: Picture) -> Opacity:
        result = network.predict(frame, **options)[0]
        height, width = frame.shape[:2]
        if result.masks is None:
            return np.zeros((height, width), np.float32)
        union = result.masks.data.max(dim=0).values.numpy().astype(np.float32)
        # The masks are at the network's scale, with its padding.
        gain = min(union.shape[0] / height, union.shape[1] / width)
        rows, columns = round(height * gain), round(width * gain)
        top, left = (union.shape[0] - rows) // 2, (union.shape[1] - columns) // 2
        return cv2.resize(union[top : top + rows, left : left + columns], (width, height))

    return opacity


def _exported_hw(model: Path) -> list[int]:
    if model.is_dir():
        from ultralytics.utils import YAML

        return list(YAML.load(model / "metadata.yaml")["imgsz"])
    if model.suffix == ".onnx":
        import onnxruntime

        shape = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]).get_inputs()[0].shape
        if all(isinstance(side, int) for side in shape[2:]):
            return list(shape[2:])
    return [640, 640]


def _mediapipe(model: str) -> Callable[[Picture], Opacity]:
    """MediaPipe's selfie segmentation, the general network."""
    import mediapipe

    network = mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)
    return lambda frame: network.process(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)).segmentation_mask


def _rvm(model: str) -> Callable[[Picture], Opacity]:
    """Robust Video Matting as an ONNX file of one size, its state carried from frame to frame."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    picture, *before = session.get_inputs()
    height, width = picture.shape[2:]
    after = [output.name for output in session.get_outputs()][2:]
    state = {one.name: np.zeros(one.shape, np.float32) for one in before}

    def opacity(frame: Picture) -> Opacity:
        rgb = cv2.cvtColor(cv2.resize(frame, (width, height)), cv2.COLOR_BGR2RGB)
        tensor = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32) / 255
        alpha, *states = session.run(["pha", *after], {picture.name: tensor, **state})
        state.update(zip(state, states, strict=True))
        return cv2.resize(alpha[0, 0], frame.shape[1::-1])

    return opacity


_PEERS = {"ultralytics": _ultralytics, "mediapipe": _mediapipe, "rvm": _rvm}


class _Writer:
    def __init__(self, path: str, rate: float, size_wh: tuple[int, int]) -> None:
        try:
            import av
        except ImportError:
            self.name = "OpenCV mp4v"
            writer: Any = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"mp4v"), rate, size_wh)
            self.write, self.close = writer.write, writer.release
            return
        self.name = "libx264 ultrafast"
        container = av.open(path, "w")
        stream: Any = container.add_stream("libx264", rate=round(rate))
        (stream.width, stream.height), stream.pix_fmt = size_wh, "yuv420p"
        stream.options = {"preset": "ultrafast"}

        def write(picture: Picture) -> None:
            # OpenCV converts faster than PyAV.
            planes = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))

        def close() -> None:
            container.mux(stream.encode(None))
            container.close()

        self.write, self.close = write, close


def main() -> None:
    """Run one loop and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=_PEERS)
    parser.add_argument("clip")
    parser.add_argument("--out", required=True)
    parser.add_argument("--model", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--masks", type=Path, help="also write each opacity here, as PNG; not for measuring speed")
    args = parser.parse_args()

    opacity = _PEERS[args.peer](args.model)
    capture = cv2.VideoCapture(args.clip)
    good, frame = capture.read()
    if not good:
        raise SystemExit(f"cannot read {args.clip}")
    cv2.setNumThreads(args.threads)
    for _ in range(_WARM_UP_FRAMES):
        opacity(frame)
    capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
    writer = _Writer(args.out, capture.get(cv2.CAP_PROP_FPS) or 30, frame.shape[1::-1])
    frames, wall_began, cpu_began = 0, time.perf_counter(), time.process_time()
    while True:
        good, frame = capture.read()
        if not good:
            break
        person = opacity(frame)
        writer.write(np.where(person[..., None] > 0.5, frame, cv2.GaussianBlur(frame, (55, 55), 0)))
        if args.masks:
            cv2.imwrite(str(args.masks / f"{frames:06}.png"), np.rint(person * 255).astype(np.uint8))
        frames += 1
    writer.close()
    report: dict[str, Any] = {
        "frames": frames,
        "wall_s": time.perf_counter() - wall_began,
        "cpu_s": time.process_time() - cpu_began,
        "encoder": writer.name,
        "versions": {"opencv": cv2.__version__, "numpy": np.__version__},
    }
    for package in ("ultralytics", "torch", "mediapipe", "onnxruntime", "openvino"):
        if package in sys.modules:
            report["versions"][package] = importlib.metadata.version(package)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
