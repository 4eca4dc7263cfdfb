"""Records of what was seen; pycocotools reads the masks back."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from streamseg.frame import Colour, Frame, Origin, Output
from streamseg.segment import Matte, load_segmenter
from streamseg.segment.describe import encode_mask, record, run_lengths
from tests import networks
from tests.test_yolo import DETECTIONS, PROTOTYPES

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' decode, under numpy 2


@pytest.mark.parametrize(
    ("mask", "offset", "size", "runs"),
    [
        ([[1]], (0, 0), (1, 1), [0, 1]),
        ([[0]], (0, 0), (1, 1), [1]),
        ([[1]], (1, 1), (3, 3), [4, 1, 4]),
        ([[1, 1], [1, 1]], (1, 0), (3, 2), [2, 4]),  # a run goes on in the next column
        ([[1, 0], [0, 1]], (0, 0), (2, 2), [0, 1, 2, 1]),
        ([[1, 1, 1]], (1, 0), (2, 1), [1, 1]),  # what stands out is left out
        (np.zeros((0, 4)), (0, 0), (2, 2), [4]),
    ],
)
def test_runs_of_small_masks(mask, offset, size, runs):
    assert run_lengths(np.array(mask, np.uint8), offset, size) == runs


@given(st.data())
def test_codes_equal_those_of_pycocotools(data):
    width, height = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    x, y = data.draw(st.integers(0, 10)), data.draw(st.integers(0, 10))
    rows, columns = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
    bits = data.draw(st.lists(st.integers(0, 1), min_size=rows * columns, max_size=rows * columns))
    mask = np.array(bits, np.uint8).reshape(rows, columns)
    full = np.zeros((height + 20, width + 20), np.uint8)
    full[y : y + rows, x : x + columns] = mask
    expected = coco.encode(np.asfortranarray(full[:height, :width]))
    code = encode_mask(mask, (x, y), (width, height))
    assert code == {"size": expected["size"], "counts": expected["counts"].decode()}


def seen_by(network, width=128, height=96, original=None):
    planes = np.full((height * 3 // 2, width), 128, np.uint8)
    origin = Origin("photo.jpg", original or (width, height))
    frame = Frame(planes, 12, Fraction(1, 25), 3, 0.0, Colour(), origin)
    return frame, network(frame)


@pytest.fixture
def network(tmp_path):
    return load_segmenter(networks.yolo_seg(tmp_path / "net.onnx", DETECTIONS, PROTOTYPES), threads=1)


def test_a_record_of_instances(network):
    frame, seen = seen_by(network)
    found = json.loads(json.dumps(record(Output(frame), seen)))
    assert (found["source"], found["size_wh"], found["index"], found["pts"], found["time_s"]) == (
        "photo.jpg", [128, 96], 3, 12, 0.48,
    )  # fmt: skip
    person, car = found["instances"]
    assert (person["class"], person["class_id"]) == ("person", 0)
    assert (car["class"], car["class_id"]) == ("car", 2)
    assert person["score"] == pytest.approx(0.9, abs=1e-6)
    assert person["box_xyxy"] == [24, 28, 104, 68]
    mask = coco.decode(person["mask"])
    assert mask.shape == (96, 128)
    expected = np.zeros((96, 128))
    expected[28:68, 24:64] = 1
    assert np.array_equal(mask, expected)


def test_everything_refers_to_the_picture_before_padding(network):
    """The car's box ends at 112 x 72; the picture ends before it."""
    frame, seen = seen_by(network, original=(111, 71))
    car = record(Output(frame), seen)["instances"][1]
    assert car["box_xyxy"] == [80, 56, 111, 71]
    assert car["mask"]["size"] == [71, 111]
    assert coco.area(car["mask"]) == 31 * 15


def test_a_record_of_a_matte():
    frame, _ = seen_by(lambda _: None, original=(127, 95))
    alpha = np.zeros((12, 16), np.float32)
    alpha[:, :8] = 1
    found = json.loads(json.dumps(record(Output(frame), Matte(alpha, (128, 96)))))
    mask = coco.decode(found["mask"])
    assert mask.shape == (95, 127)
    assert mask[:, :64].all()
    assert not mask[:, 64:].any()
    assert found["coverage"] == pytest.approx(64 / 127, abs=1e-3)
    assert "instances" not in found


def test_a_record_of_nothing():
    frame, _ = seen_by(lambda _: None)
    assert set(record(Output(frame), None)) == {"source", "size_wh", "index", "pts", "time_s"}


def test_codes_of_large_masks_are_read_back():
    rng = np.random.default_rng(0)
    mask = (rng.random((300, 200)) > 0.5).astype(np.uint8)
    full = np.zeros((480, 640), np.uint8)
    full[100:400, 50:250] = mask
    assert np.array_equal(coco.decode(encode_mask(mask, (50, 100), (640, 480))), full)
