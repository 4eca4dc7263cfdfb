"""From raw predictions to instances, against a reference that does one pair of boxes at a time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from streamseg.errors import InferenceError
from streamseg.frame import Colour, Frame, Origin
from streamseg.segment import Instances, load_segmenter
from streamseg.segment.yolo import select, suppress
from tests import networks


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def reference(rows, mask_count, confidence, iou, limit, classes=None):
    """Ultralytics' steps for a single label: best class, threshold, class filter, greedy suppression by class."""
    found = []
    for column in rows.T.astype(float):
        scores = column[4 : len(column) - mask_count]
        best = int(scores.argmax())
        if scores[best] > confidence and (classes is None or best in classes):
            x, y, w, h = column[:4]
            box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            found.append((scores[best], best, box, column[len(column) - mask_count :]))
    found.sort(key=lambda entry: -entry[0])
    kept = []
    for entry in found:
        if all(other[1] != entry[1] or overlap(other[2], entry[2]) <= iou for other in kept):
            kept.append(entry)
    return kept[:limit]


def predictions(seed, anchors=400, classes=4, masks=6, clusters=12):
    rng = np.random.default_rng(seed)
    centres = rng.uniform(40, 600, (clusters, 2))[rng.integers(0, clusters, anchors)] + rng.normal(0, 8, (anchors, 2))
    sizes = rng.uniform(20, 160, (anchors, 2))
    scores = rng.beta(0.4, 3, (anchors, classes))
    return np.concatenate([centres, sizes, scores, rng.standard_normal((anchors, masks))], axis=1).T.astype(np.float32)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("confidence", [0.25, 0.001])
@pytest.mark.parametrize("classes", [None, (0,), (1, 3), (7,), ()])
def test_select_equals_the_reference(seed, confidence, classes):
    rows = predictions(seed)
    boxes, scores, class_ids, coefficients = select(rows, 6, confidence, 0.5, 100, classes)
    expected = reference(rows, 6, confidence, 0.5, 100, classes)
    assert len(scores) == len(expected)
    assert coefficients.shape == (len(expected), 6)
    if expected:
        assert np.allclose(scores, [entry[0] for entry in expected])
        assert class_ids.tolist() == [entry[1] for entry in expected]
        assert np.allclose(boxes, [entry[2] for entry in expected], atol=1e-3)
        assert np.allclose(coefficients, [entry[3] for entry in expected])


def test_half_precision_predictions_choose_the_same():
    rows = predictions(3).astype(np.float16)
    half = select(rows, 6, 0.25, 0.5, 100)
    single = select(rows.astype(np.float32), 6, 0.25, 0.5, 100)
    assert all(np.array_equal(a, b) for a, b in zip(half, single, strict=True))
    assert all(part.dtype in (np.float32, np.int64) for part in half)


def test_overlap_must_exceed_the_limit():
    """Two boxes of 4 x 4 that share half have an IoU of one third exactly."""
    boxes = np.array([[0, 0, 4, 4], [2, 0, 4, 4]], np.float32)
    scores, one_class = np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64)
    assert suppress(boxes, scores, one_class, 0.34, 10).tolist() == [0, 1]
    assert suppress(boxes, scores, one_class, 0.33, 10).tolist() == [0]
    assert suppress(boxes, scores, np.array([0, 1]), 0.33, 10).tolist() == [0, 1]


def test_suppression_in_portions_is_exact():
    """The first instances that stay are the same as when all thousands were compared."""
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, 300, (5000, 2)), rng.uniform(20, 80, (5000, 2))], axis=1).astype(np.float32)
    scores, class_ids = rng.random(5000).astype(np.float32), rng.integers(0, 3, 5000)
    everything = suppress(boxes, scores, class_ids, 0.3, 5000)
    assert 150 < len(everything) < 4000
    assert np.array_equal(suppress(boxes, scores, class_ids, 0.3, 120), everything[:120])


def test_equal_scores_keep_the_order_of_the_anchors():
    boxes = np.array([[0, 0, 9, 9], [100, 0, 9, 9], [0, 0, 9, 9]], np.float32)
    assert suppress(boxes, np.full(3, 0.5, np.float32), np.zeros(3, np.int64), 0.5, 5).tolist() == [0, 1]


# An input of 64 x 64, prototypes of 16 x 16: the first is left half minus right half, the second is 1.
LEFT = np.where(np.arange(16) < 8, 6.0, -6.0)[None].repeat(16, axis=0)
PROTOTYPES = np.stack([LEFT, np.ones((16, 16))]).astype(np.float32)
# Columns: centre x, y, width, height, three classes, two coefficients.
DETECTIONS = np.array(
    [
        [32, 32, 40, 20, 0.9, 0.1, 0.0, 1, 0],
        [33, 32, 40, 20, 0.8, 0.1, 0.0, 1, 0],
        [48, 40, 16, 8, 0.0, 0.0, 0.7, 0, 5],
        [10, 10, 4, 4, 0.1, 0.2, 0.1, 1, 1],
    ],
    np.float32,
).T


def frame(width=128, height=96):
    planes = np.full((height * 3 // 2, width), 128, np.uint8)
    return Frame(planes, 0, Fraction(1, 30), 0, 0.0, Colour(), Origin("test", (width, height)))


@pytest.fixture(params=[np.float32, np.float16], ids=["single", "half"])
def network(request, tmp_path):
    return networks.yolo_seg(tmp_path / "net.onnx", DETECTIONS, PROTOTYPES, dtype=request.param)


def test_a_frame_in_instances_out(network):
    seen = load_segmenter(network, threads=1)(frame())
    assert isinstance(seen, Instances)
    assert len(seen) == 2
    assert [seen.class_names[i] for i in seen.class_ids] == ["person", "car"]
    # 128 x 96 lies at half size from row 8 on.
    assert np.allclose(seen.boxes, [[24, 28, 104, 68], [80, 56, 112, 72]])
    person, car = seen.masks()
    assert person.offset_xy == (24, 28)
    assert person.mask.shape == (40, 80)
    assert person.mask[:, :40].all()  # the left half ends at x = 64
    assert not person.mask[:, 40:].any()
    assert car.mask.all()


def test_the_matte_is_the_union_over_the_whole_frame(network):
    seen = load_segmenter(network, threads=1)(frame())
    both, people, cars = seen.matte(), seen.matte([0]), seen.matte([2])
    assert both.shape == (12, 16)
    assert np.array_equal(both, np.maximum(people, cars))
    assert people[6, 4] > 0.99
    assert people[6, 12] < 0.01
    assert cars[8, 12] > 0.99
    assert cars[8, 4] == 0
    assert seen.matte([1]).max() == 0
    assert seen.matte([]).max() == 0


def test_the_largest_instance_alone(network):
    seen = load_segmenter(network, threads=1)(frame())
    assert np.array_equal(seen.matte(largest=True), seen.matte([0]))
    assert np.array_equal(seen.matte([2], largest=True), seen.matte([2]))


def test_classes_are_dropped_as_if_filtered_afterwards(network):
    seen = load_segmenter(network, threads=1, classes={2})(frame())
    assert seen.class_ids.tolist() == [2]
    # The last anchor's best class is the second: it is no third-class object with a lower score.
    assert len(load_segmenter(network, threads=1, classes={2}, confidence=0.05)(frame())) == 1


def test_nothing_found(network):
    seen = load_segmenter(network, threads=1, confidence=0.95)(frame())
    assert len(seen) == 0
    assert seen.masks() == []
    assert seen.matte().shape == (12, 16)
    assert seen.matte(largest=True).max() == 0


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("place", ["box", "coefficient", "prototype"])
def test_what_is_no_number_is_refused(tmp_path, kind, sign, place):
    detections, prototypes = DETECTIONS.copy(), PROTOTYPES.copy()
    target = {"box": detections[2:], "coefficient": detections[7:], "prototype": prototypes[1]}[place]
    target[0, 0] = np.copysign(np.nan, sign)
    path = networks.yolo_seg(tmp_path / "net.onnx", detections, prototypes, dtype=kind)
    with pytest.raises(InferenceError, match=r"net\.onnx gave values that are no numbers"):
        load_segmenter(path, threads=1)


def test_infinities_are_numbers(tmp_path):
    detections = DETECTIONS.copy()
    detections[7, 0] = np.inf
    path = networks.yolo_seg(tmp_path / "net.onnx", detections, PROTOTYPES, dtype=np.float16)
    assert len(load_segmenter(path, threads=1)(frame())) == 2


def test_frames_of_other_sizes_follow_each_other(network):
    segment = load_segmenter(network, threads=1)
    assert segment(frame(128, 96)).frame_wh == (128, 96)
    wide = segment(frame(128, 64))
    assert wide.frame_wh == (128, 64)
    assert np.allclose(wide.boxes[0], [24, 12, 104, 52])


def test_a_dynamic_graph_takes_the_best_rectangle(tmp_path):
    path = networks.yolo_seg(tmp_path / "net.onnx", DETECTIONS, PROTOTYPES, input_shape=("n", 3, "h", "w"))
    segment = load_segmenter(path, threads=1, warm_up=False)
    assert segment.describe()["input_shape"] is None
    segment(frame(128, 72))
    assert segment.describe()["input_shape"] == [1, 3, 384, 640]
    set_size = load_segmenter(path, threads=1, size_wh=(320, 192))
    assert set_size.describe()["input_shape"] == [1, 3, 192, 320]


@pytest.mark.material
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' decode, under numpy 2
def test_real_weights_find_the_people_in_a_photograph(material):
    """COCO's own annotation of the photograph is the reference."""
    import json

    import cv2
    from pycocotools import mask as coco

    from streamseg.pixels.planes import rgb_to_planes

    folder = material / "datasets/coco_val"
    truth = json.loads((folder / "instances.json").read_text())
    name = "000000000139.jpg"
    image = next(entry for entry in truth["images"] if entry["file_name"] == name)
    bgr = cv2.imread(str(folder / "images" / name))
    even = cv2.copyMakeBorder(bgr, 0, bgr.shape[0] % 2, 0, bgr.shape[1] % 2, cv2.BORDER_REPLICATE)
    planes = rgb_to_planes(np.ascontiguousarray(even[..., ::-1]), Colour(matrix=6))
    picture = Frame(planes, 0, Fraction(1), 0, 0.0, Colour(matrix=6), Origin(name, (bgr.shape[1], bgr.shape[0])))
    seen = load_segmenter(material / "models/yolov8n-seg.onnx")(picture)
    people = [a for a in truth["annotations"] if a["image_id"] == image["id"] and a["category_id"] == 1]
    biggest = max(people, key=lambda a: a["area"])
    code = coco.merge(coco.frPyObjects(biggest["segmentation"], image["height"], image["width"]))
    expected = coco.decode(code)
    scores = []
    for found, class_id in zip(seen.masks(), seen.class_ids, strict=True):
        if class_id == 0:
            x, y = found.offset_xy
            full = np.zeros((picture.height, picture.width), np.uint8)
            full[y : y + found.mask.shape[0], x : x + found.mask.shape[1]] = found.mask
            full = full[: expected.shape[0], : expected.shape[1]]
            scores.append((full & expected).sum() / (full | expected).sum())
    assert max(scores) > 0.7
