"""Semantic networks of every layout and ending, against answers that are known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from streamseg.errors import ModelLoadError
from streamseg.frame import Colour, Frame
from streamseg.pixels.planes import rgb_to_planes
from streamseg.segment.inspect import inspect_onnx
from streamseg.segment.load import load_segmenter
from streamseg.segment.preprocess import Preprocess
from streamseg.segment.result import ClassMap
from tests.clips import frame as clip_frame
from tests.networks import save, yolop

H, W = 16, 32


def network(
    path: Path,
    heads: dict[str, np.ndarray],
    *,
    ending: str | None = None,
    layout: str = "nchw",
    metadata: dict[str, str] | None = None,
    half: bool = False,
) -> Path:
    """Each head is (classes, 4): weights of R, G, B and a bias, at every pixel; values as the network takes them."""
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    dtype = np.float16 if half else np.float32
    nodes, weights, outputs = [], [], []
    first = "image"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]))
        first = "first"
    for name, head in heads.items():
        weights.append(numpy_helper.from_array(head[:, :3, None, None].astype(dtype), f"{name}_w"))
        weights.append(numpy_helper.from_array(head[:, 3].astype(dtype), f"{name}_b"))
        last = f"{name}_scores"
        nodes.append(helper.make_node("Conv", [first, f"{name}_w", f"{name}_b"], [last]))
        if ending:
            extra = {"axis": 1} if ending == "Softmax" else {}
            nodes.append(helper.make_node(ending, [last], [f"{name}_p"], **extra))
            last = f"{name}_p"
        perm = [0, 2, 3, 1] if layout == "nhwc" else [0, 1, 2, 3]
        nodes.append(helper.make_node("Transpose", [last], [name], perm=perm))
        shape = (1, H, W, len(head)) if layout == "nhwc" else (1, len(head), H, W)
        outputs.append(helper.make_tensor_value_info(name, kind, shape))
    shape = (1, H, W, 3) if layout == "nhwc" else (1, 3, H, W)
    graph = helper.make_graph(
        nodes, "classmap", [helper.make_tensor_value_info("image", kind, shape)], outputs, weights
    )
    return save(graph, path, metadata)


def halves(left: tuple[int, int, int], right: tuple[int, int, int]) -> Frame:
    """Two colours side by side, 64 x 32."""
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:, :32], picture[:, 32:] = left, right
    colour = Colour(full_range=True, matrix=6)
    return clip_frame(0, 64, 32, planes=rgb_to_planes(picture, colour), colour=colour)


# Background by default, red is class 1, green is class 2.
HEAD = np.array([[0, 0, 0, 0.0], [8, 0, 0, -4], [0, 8, 0, -4]])


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("ending", [None, "Softmax"])
@pytest.mark.parametrize("half", [False, True])
def test_probabilities_are_the_softmax_of_the_scores(
    tmp_path: Path, layout: str, ending: str | None, half: bool
) -> None:
    path = network(
        tmp_path / "net.onnx", {"out": HEAD}, ending=ending, layout=layout, half=half,
        metadata={"names": "['none', 'red', 'green']"},
    )  # fmt: skip
    segmenter = load_segmenter(path)
    seen = segmenter(halves((255, 0, 0), (0, 255, 0)))
    assert isinstance(seen, ClassMap)
    assert segmenter.class_names == seen.class_names == ("none", "red", "green")
    assert seen.frame_wh == (64, 32)
    scores = np.array([0.0, 4.0, -4.0])
    expected = np.exp(scores) / np.exp(scores).sum()
    assert seen.probabilities.dtype == np.float32
    assert seen.probabilities.shape == (3, H, W)
    assert seen.probabilities[:, 8, 4] == pytest.approx(expected, abs=0.02)
    assert seen.probabilities[:, 8, 28] == pytest.approx(expected[[0, 2, 1]], abs=0.02)
    assert seen.matte([1])[8, 4] == pytest.approx(expected[1], abs=0.02)


def test_two_classes_and_a_sigmoid(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx", {"out": HEAD[:2]})
    seen = load_segmenter(path)(halves((255, 0, 0), (0, 0, 0)))
    assert seen.matte(None)[8, [4, 28]] == pytest.approx([1 / (1 + np.exp(-4)), 1 / (1 + np.exp(4))], abs=0.01)
    path = network(tmp_path / "net2.onnx", {"out": HEAD[:2]}, ending="Sigmoid")
    seen = load_segmenter(path)(halves((255, 0, 0), (0, 0, 0)))
    assert seen.matte([1])[8, [4, 28]] == pytest.approx([1 / (1 + np.exp(-4)), 1 / (1 + np.exp(4))], abs=0.01)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("da", "ll"), ("background", "road", "line")),
        (("drive_area_seg", "lane_line_seg"), ("background", "road", "line")),
        (("call", "data"), ("background", "call", "data")),
    ],
)
def test_two_class_heads_become_one_class_each(
    tmp_path: Path, names: tuple[str, str], classes: tuple[str, ...]
) -> None:
    red, green = HEAD[:2], HEAD[[0, 2]]
    path = network(tmp_path / "net.onnx", {names[0]: red, names[1]: green})
    seen = load_segmenter(path)(halves((255, 255, 0), (0, 0, 0)))
    assert seen.class_names == classes
    # Road and line at once: the heads do not compete.
    assert seen.probabilities[:, 8, 4] == pytest.approx([0.018, 0.982, 0.982], abs=0.01)
    assert seen.probabilities[:, 8, 28] == pytest.approx([0.982, 0.018, 0.018], abs=0.01)


def test_boxes_beside_the_maps_are_left_alone(tmp_path: Path) -> None:
    path = yolop(tmp_path / "net.onnx")
    facts = inspect_onnx(path)
    assert [tensor.name for tensor in facts.unread] == ["det_out"]
    chosen = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    seen = load_segmenter(path, preprocess=chosen)(halves((255, 0, 0), (0, 255, 0)))
    assert seen.class_names == ("background", "road", "line")
    assert seen.probabilities[1:, 8, 4] == pytest.approx([1, 0], abs=0.01)
    assert seen.probabilities[1:, 8, 28] == pytest.approx([0, 1], abs=0.01)


def test_normalisation_from_metadata_and_from_the_caller(tmp_path: Path) -> None:
    metadata = {"mean": "[0.5, 0.25, 0.0]", "std": "[0.5, 0.25, 2.0]", "channel_order": "bgr"}
    # Class 1 takes the network's channels as they are: B, G, R.
    head = np.array([[0, 0, 0, 0.0], [1, 10, 100, 0]])
    path = network(tmp_path / "net.onnx", {"out": head}, metadata=metadata)
    given = Preprocess((0.5, 0.25, 0.0), (0.5, 0.25, 2.0), swapped=True)
    plain = network(tmp_path / "plain.onnx", {"out": head})
    rgb = (0.52, 0.2, 0.3)
    logit = (rgb[2] - 0) / 2 * 1 + (rgb[1] - 0.25) / 0.25 * 10 + (rgb[0] - 0.5) / 0.5 * 100
    frame = halves(tuple(round(255 * value) for value in rgb), (0, 0, 0))
    for segmenter in (load_segmenter(path), load_segmenter(plain, preprocess=given)):
        seen = float(segmenter(frame).matte([1])[8, 4])
        assert np.log(seen / (1 - seen)) == pytest.approx(logit, abs=0.8)


def test_a_letterboxed_network_answers_for_the_picture_alone(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx", {"out": HEAD[:2]}, metadata={"letterbox": "true"})
    # 64 x 64 in an input of 32 x 16: the picture lies in the middle half.
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :32, 0] = 255
    colour = Colour(full_range=True, matrix=6)
    frame = clip_frame(0, 64, 64, planes=rgb_to_planes(picture, colour), colour=colour)
    seen = load_segmenter(path)(frame)
    assert seen.probabilities.shape == (2, 16, 16)
    assert seen.matte([1])[8, [2, 13]] == pytest.approx([0.982, 0.018], abs=0.01)


def test_names_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx", {"out": HEAD})
    assert load_segmenter(path, class_names=["a", "b", "c"]).class_names == ("a", "b", "c")
    with pytest.raises(ModelLoadError, match=r"gives 3 classes .*not 2 names"):
        load_segmenter(path, class_names=["a", "b"])
    broken = network(tmp_path / "broken.onnx", {"out": HEAD}, metadata={"mean": "[1, 2]"})
    with pytest.raises(ModelLoadError, match="'mean' is no list of three numbers"):
        load_segmenter(broken)


@pytest.mark.material
def test_real_networks_find_road_lines_and_people(material: Path) -> None:
    def still(path: Path) -> Frame:
        picture = cv2.imread(str(path))[..., ::-1]
        height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
        planes = rgb_to_planes(np.ascontiguousarray(picture[:height, :width]), Colour(True, 6))
        return clip_frame(0, width, height, planes=planes, colour=Colour(True, 6))

    road = load_segmenter(material / "models" / "twinlitenetplus_nano.onnx")
    assert road.class_names == ("background", "road", "line")
    seen = road(still(material / "media" / "road" / "udacity_solidWhiteRight.jpg"))
    _, height, width = seen.probabilities.shape
    assert seen.matte([1])[int(height * 0.85), width // 2] > 0.9
    assert seen.matte([1])[int(height * 0.2), width // 2] < 0.1
    assert 0.002 < (seen.matte([2]) > 0.5).mean() < 0.08
    people = load_segmenter(
        material / "models" / "deeplab_portrait.onnx", preprocess=Preprocess((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    )
    matte = people(still(material / "media" / "people" / "pixabay_woman-5883428_1280.jpg")).matte([1])
    assert matte.shape == (513, 513)
    assert matte[350, 280] > 0.9
    assert matte[40, 40] < 0.1
