"""Networks with one opacity a pixel, by a graph whose answer can be computed by hand: opacity follows red."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import pytest

from streamseg.errors import InferenceError, ModelLoadError
from streamseg.frame import Colour, Frame, Origin
from streamseg.pixels.planes import rgb_to_planes
from streamseg.segment import ClassMap, Matte, load_segmenter
from streamseg.segment.preprocess import Preprocess
from tests import networks


def frame_of(rgb):
    planes = rgb_to_planes(np.ascontiguousarray(rgb), Colour(matrix=1))
    return Frame(planes, 0, Fraction(1, 30), 0, 0.0, Colour(matrix=1), Origin("test", (rgb.shape[1], rgb.shape[0])))


def red_left(width=128, height=96):
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, : width // 2] = (255, 0, 0)
    return frame_of(rgb)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("last", ["Sigmoid", "Identity"])
def test_opacity_of_a_picture_half_red(tmp_path, layout, last):
    """With a sigmoid in the graph, or with logits that get one: the same opacity."""
    segment = load_segmenter(networks.matte(tmp_path / "m.onnx", layout=layout, last=last), threads=1)
    seen = segment(red_left())
    assert isinstance(seen, Matte)
    assert seen.frame_wh == (128, 96)
    alpha = seen.matte()
    assert alpha.shape == (32, 32)
    assert alpha.dtype == np.float32
    # The logit is 5 on red and -5 elsewhere.
    assert np.abs(alpha[:, :15] - 1 / (1 + np.exp(-5))).max() < 2e-3
    assert np.abs(alpha[:, 17:] - 1 / (1 + np.exp(5))).max() < 2e-3
    assert segment.class_names == ("person",)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("told_by", ["the caller", "the file"])
def test_a_network_that_was_trained_on_minus_one_to_one(tmp_path, layout, told_by):
    """Its logit is then 5 on red, and -15 instead of -5 elsewhere."""
    path = networks.matte(tmp_path / "m.onnx", layout=layout)
    chosen = None
    if told_by == "the file":
        model = onnx.load(path)
        onnx.helper.set_model_props(model, {"mean": "[0.5, 0.5, 0.5]", "std": "[0.5, 0.5, 0.5]"})
        onnx.save(model, path)
    else:
        chosen = Preprocess((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    alpha = load_segmenter(path, threads=1, preprocess=chosen)(red_left()).matte()
    assert np.abs(alpha[:, :15] - 1 / (1 + np.exp(-5))).max() < 4e-3
    assert alpha[:, 17:].max() < 1e-5


@pytest.mark.parametrize("std", [(0.5, 0.0, 0.5), (0.5, 0.5, float("nan"))])
def test_nothing_is_divided_by_zero(std):
    with pytest.raises(ModelLoadError, match=r"mean and std .* must be numbers, std not 0") as caught:
        Preprocess((0.5, 0.5, 0.5), std)
    assert caught.value.exit_code == 2


def test_an_input_that_keeps_the_proportions(tmp_path):
    path = networks.matte(tmp_path / "m.onnx")
    alpha = load_segmenter(path, threads=1, preprocess=Preprocess(letterbox=True))(red_left()).matte()
    assert alpha.shape == (24, 32), "of the picture alone, without the grey above and below"
    assert alpha[:, :15].min() > 0.99
    assert alpha[:, 17:].max() < 0.01


def test_what_is_no_number_is_refused(tmp_path):
    """The square root of a logit below 0 is none."""
    segment = load_segmenter(networks.matte(tmp_path / "m.onnx", last="Sqrt"), threads=1)
    with pytest.raises(InferenceError, match=r"m\.onnx gave values that are no numbers; try model\.precision fp32"):
        segment(red_left())


def test_values_that_are_opacity_already_are_left_alone(tmp_path):
    """A Clip to 0..1 ends the graph: red gives 1, black 0, not the sigmoid of these."""
    path = networks.matte(tmp_path / "m.onnx", last="HardSigmoid")
    alpha = load_segmenter(path, threads=1)(red_left()).matte()
    assert alpha[:, :15].min() == 1
    assert alpha[:, 17:].max() == 0


def test_an_open_size_must_be_set(tmp_path):
    path = networks.matte(tmp_path / "m.onnx", size="s")
    with pytest.raises(ModelLoadError, match="set one, such as 256x256"):
        load_segmenter(path, threads=1)
    assert load_segmenter(path, threads=1, size_wh=(48, 40))(red_left()).matte().shape == (40, 48)


def test_the_largest_part_keeps_its_soft_edge():
    alpha = np.zeros((20, 30), np.float32)
    alpha[2:12, 2:12], alpha[1, 2:12] = 1, 0.3
    alpha[14:18, 20:24], alpha[18, 20:24] = 0.9, 0.4
    kept = Matte(alpha, (300, 200)).matte(largest=True)
    assert kept[2:12, 2:12].min() == 1
    assert np.allclose(kept[1, 2:12], 0.3)
    assert kept[14:19, 20:24].max() == 0
    assert np.array_equal(Matte(alpha, (300, 200)).matte(), alpha)


def test_class_probabilities_add_up():
    planes = np.array([[[0.5, 0.1]], [[0.3, 0.2]], [[0.2, 0.7]]], np.float32)
    seen = ClassMap(planes, ("background", "road", "car"), (2, 1))
    assert np.allclose(seen.matte([1, 2]), [[0.5, 0.9]])
    assert np.allclose(seen.matte(), [[0.5, 0.9]])
    assert np.allclose(seen.matte([2]), [[0.2, 0.7]])


@pytest.mark.material
def test_the_portrait_network_covers_who_is_there(material):
    """In the astronaut-like middle of a portrait clip the subject is opaque, and the upper corners are clear."""
    import av

    segment = load_segmenter(material / "models/selfie.onnx")
    with av.open(str(material / "media/portrait_pixabay_thoughtful35590.mp4")) as clip:
        picture = next(clip.decode(video=0))
        planes = np.ascontiguousarray(picture.to_ndarray(format="yuv420p"))
    seen = segment(Frame(planes, 0, Fraction(1, 30), 0, 0.0, Colour(), Origin("clip", (picture.width, picture.height))))
    alpha = seen.matte()
    assert 0.1 < alpha.mean() < 0.9
    assert ((alpha > 0.9) | (alpha < 0.1)).mean() > 0.8
