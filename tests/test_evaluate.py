"""Every metric against an independent implementation or a case worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from streamseg.errors import SinkWriteError, SourceOpenError
from streamseg.evaluate.alpha import connectivity_error, gradient_error, mean_squared_error
from streamseg.evaluate.davis import clips, score_masks, truth_of
from streamseg.evaluate.instances import Truth, average_precision
from streamseg.evaluate.mattes import boundary_f, dtssd, jaccard, mean_absolute_difference
from streamseg.evaluate.semantic import Confusion, mask_files, read_labels, read_trimap
from streamseg.evaluate.sheet import overlay, write_sheet
from streamseg.evaluate.stability import lateness, steadiness


def blobs(seed: int, height: int = 120, width: int = 160) -> NDArray[np.bool_]:
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, (height, width)), 8) > 0


def soft(seed: int, height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, (height, width)), 3)
    return np.clip(127 + 900 * rough, 0, 255).astype(np.uint8)


# J and boundary F


def seg2bmap(seg: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The benchmark's contour, pixel by pixel: unlike the right, lower or lower right neighbour."""
    height, width = seg.shape
    out = np.zeros_like(seg)
    for y in range(height):
        for x in range(width):
            near = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            out[y, x] = any(seg[y, x] != seg[b, a] for b, a in near if b < height and a < width)
    return out


def reference_f(found: NDArray[np.bool_], truth: NDArray[np.bool_], tolerance: float = 0.008) -> float:
    """F by distances between contour pixels instead of dilated contours."""
    reach = np.ceil(tolerance * np.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    ours, theirs = seg2bmap(found), seg2bmap(truth)
    precision = (ndimage.distance_transform_edt(~theirs)[ours] <= reach).mean()
    recall = (ndimage.distance_transform_edt(~ours)[theirs] <= reach).mean()
    return float(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize(("one", "other", "size"), [(1, 2, (60, 80)), (3, 4, (90, 40)), (5, 5, (50, 50))])
@pytest.mark.parametrize("tolerance", [0.008, 0.03])
def test_boundary_f_is_the_benchmarks(one: int, other: int, size: tuple[int, int], tolerance: float) -> None:
    found, truth = blobs(one, *size), blobs(other, *size)
    assert boundary_f(found, truth, tolerance) == pytest.approx(reference_f(found, truth, tolerance), abs=1e-9)


def test_j_and_f_of_nothing() -> None:
    empty, full = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    full[5:10, 5:10] = True
    assert (jaccard(empty, empty), boundary_f(empty, empty)) == (1, 1)
    assert (jaccard(empty, full), boundary_f(empty, full)) == (0, 0)
    assert (jaccard(full, full), boundary_f(full, full)) == (1, 1)
    half = full.copy()
    half[5:10, 10:15] = True
    assert jaccard(half, full) == 0.5


# opacity


def test_mad_mse_and_dtssd_by_hand() -> None:
    truth, found = np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint8)
    found[0, :2] = 255
    found[1, 0] = 51  # 0.2
    assert mean_absolute_difference(found, truth) == pytest.approx(1e3 * 2.2 / 20)
    assert mean_squared_error(found, truth) == pytest.approx(1e3 * 2.04 / 20)
    moving = np.stack([truth, found, found])
    still = np.zeros_like(moving)
    # Only the first step differs: sqrt(2.04 / 20) and 0, averaged.
    assert dtssd(moving, still) == pytest.approx(1e2 * np.sqrt(2.04 / 20) / 2)
    assert dtssd(moving, moving) == 0
    with pytest.raises(ValueError, match="at least 2"):
        dtssd(still[:1], still[:1])


def test_gradient_error_is_rhemanns() -> None:
    """The definition written out: a square kernel of a Gaussian times its derivative, of unit sum of squares."""
    sigma = 1.4

    def gauss(x: float) -> float:
        return float(np.exp(-(x**2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi)))

    half = int(np.ceil(sigma * np.sqrt(-2 * np.log(np.sqrt(2 * np.pi) * sigma * 1e-2))))
    kernel = np.array(
        [[gauss(y) * (-x * gauss(x) / sigma**2) for x in range(-half, half + 1)] for y in range(-half, half + 1)]
    )
    kernel /= np.sqrt((kernel**2).sum())

    def strength(alpha: NDArray[np.uint8]) -> NDArray[np.float64]:
        opacity = alpha / 255.0
        across = ndimage.convolve(opacity, kernel, mode="nearest")
        down = ndimage.convolve(opacity, kernel.T, mode="nearest")
        return np.sqrt(across**2 + down**2)

    found, truth = soft(1), soft(2)
    expected = ((strength(found) - strength(truth)) ** 2).sum() / 1000
    assert gradient_error(found, truth) == pytest.approx(expected, rel=1e-6)
    assert gradient_error(truth, truth) == 0


def test_connectivity_error_is_rhemanns() -> None:
    """Each pixel's threshold found by looking at the regions of every level, highest first."""

    def degree(alpha: NDArray[np.float64], level: NDArray[np.float64]) -> NDArray[np.float64]:
        apart = alpha - level
        return np.where(apart >= 0.15, 1 - apart, 1.0)

    def reference(found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
        a, b = found / 255.0, truth / 255.0
        levels = [k / 10 for k in range(11)]
        member = [np.ones(a.shape, bool)]
        for t in levels[1:]:
            labels, count = ndimage.label((a >= t) & (b >= t))  # 4-connected
            sizes = ndimage.sum_labels(np.ones(a.shape), labels, range(1, count + 1))
            member.append(labels == 1 + int(np.argmax(sizes)) if count else np.zeros(a.shape, bool))
        level = np.zeros(a.shape)
        for y, x in np.ndindex(*a.shape):
            k = 0
            while k < 10 and member[k + 1][y, x]:
                k += 1
            level[y, x] = levels[k]
        return float(np.abs(degree(a, level) - degree(b, level)).sum() / 1000)

    for one, other in [(1, 2), (3, 4)]:
        found, truth = soft(one), soft(other)
        assert connectivity_error(found, truth) == pytest.approx(reference(found, truth), rel=1e-9)
    island, truth = np.zeros((30, 30), np.uint8), np.zeros((30, 30), np.uint8)
    truth[5:15, 5:15] = island[5:15, 5:15] = 255
    island[20:24, 20:25] = 255
    assert connectivity_error(island, truth) == pytest.approx(20 / 1000), "every pixel of the island counts in full"
    assert connectivity_error(truth, truth) == 0


# classes


def test_semantic_scores_by_hand() -> None:
    truth = np.uint8([[0, 0, 0, 0], [1, 1, 1, 255], [2, 2, 9, 255]])
    found = np.uint8([[0, 0, 1, 0], [1, 0, 1, 1], [1, 7, 0, 0]])
    confusion = Confusion(("wall", "cat", "dog", "unicorn"))
    confusion.add(found[:1], truth[:1])
    confusion.add(found[1:], truth[1:])
    scores = confusion.scores()
    assert scores["PA"] == pytest.approx(5 / 9)
    assert scores["MPA"] == pytest.approx((3 / 4 + 2 / 3 + 0) / 3)
    assert scores["classes"] == {
        "wall": {"IoU": pytest.approx(3 / 5), "Dice": pytest.approx(6 / 8)},
        "cat": {"IoU": pytest.approx(2 / 5), "Dice": pytest.approx(4 / 7)},
        "dog": {"IoU": 0.0, "Dice": 0.0},
    }
    assert scores["mIoU"] == pytest.approx((3 / 5 + 2 / 5) / 3)
    assert scores["mDice"] == pytest.approx((6 / 8 + 4 / 7) / 3)
    with pytest.raises(ValueError, match="one shape"):
        confusion.add(found[:1], truth)


def test_label_files_are_read_by_index(tmp_path: Path) -> None:
    labels = np.uint8([[0, 1, 2], [3, 0, 1]])
    Image.fromarray(labels).save(tmp_path / "grey.png")
    coloured = Image.fromarray(labels)
    coloured.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    coloured.save(tmp_path / "palette.png")
    Image.fromarray(labels > 0).save(tmp_path / "bits.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "colour.png")
    (tmp_path / "text.png").write_text("no picture")
    np.testing.assert_array_equal(read_labels(tmp_path / "grey.png"), labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "palette.png"), labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "bits.png"), labels > 0)
    for name, what in [("colour", "no labels but"), ("text", "no picture"), ("absent", "no picture")]:
        with pytest.raises(SourceOpenError, match=what):
            read_labels(tmp_path / f"{name}.png")


def test_pet_trimaps(tmp_path: Path) -> None:
    Image.fromarray(np.uint8([[1, 2], [3, 1]])).save(tmp_path / "cat.png")
    Image.fromarray(np.uint8([[1, 0], [3, 1]])).save(tmp_path / "other.png")
    (tmp_path / "._cat.png").write_bytes(b"resource fork")
    np.testing.assert_array_equal(read_trimap(tmp_path / "cat.png"), [[1, 0], [255, 1]])
    with pytest.raises(SourceOpenError, match="no Oxford-IIIT Pet trimap: it holds 0"):
        read_trimap(tmp_path / "other.png")
    assert list(mask_files(tmp_path)) == ["cat", "other"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceOpenError, match="no pictures"):
        mask_files(tmp_path / "empty")


# videos


def davis_folder(root: Path, *, below: str = "") -> NDArray[np.uint8]:
    masks = np.zeros((3, 31, 40), np.uint8)
    for n in range(3):
        masks[n, 5:20, 5 + 3 * n : 20 + 3 * n] = 255
        for kind in ("Annotations", "JPEGImages"):
            folder = root / kind / below / "walk"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(masks[n]).save(folder / f"{n:05}.{'png' if kind == 'Annotations' else 'jpg'}")
    return masks


@pytest.mark.parametrize("below", ["", "480p"])
def test_davis_folders_are_read_and_scored(tmp_path: Path, below: str) -> None:
    masks = davis_folder(tmp_path, below=below)
    (clip,) = clips(tmp_path)
    assert clip.name == "walk"
    truths = [truth_of(path) for path in clip.masks]
    assert [truth.sum() for truth in truths] == [225] * 3
    late = [masks[0], masks[0], masks[1]]
    score = score_masks((matte[:30] for matte in late), truths).summary()
    assert score["J"] == pytest.approx((1 + 2 * 12 / 18) / 3)
    assert (score["J worst"], score["worst frame"], score["frames"]) == (pytest.approx(12 / 18), 1, 3)
    with pytest.raises(ValueError, match="a matte of 40x20 for a truth of 40x31"):
        score_masks([matte[:20] for matte in late], truths)
    with pytest.raises(SourceOpenError, match="no sequence run; it has walk"):
        clips(tmp_path, ["run"])
    with pytest.raises(SourceOpenError, match="no DAVIS folder"):
        clips(tmp_path / "nothing")


def test_near_leaves_out_what_is_far() -> None:
    truth = np.zeros((160, 200), bool)
    truth[60:100, 60:100] = True
    found = np.where(truth, 255, 0).astype(np.uint8)
    found[0:20, 180:200] = 255  # a bystander
    assert score_masks([found], [truth]).j[0] == pytest.approx(0.8)
    assert score_masks([found], [truth], only_near=True).summary()["J"] == 1


# COCO


def coco_file(path: Path) -> dict[str, object]:
    square = [10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]
    annotations = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 64, "height": 48}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0,
             "segmentation": [square]},
        ],
    }  # fmt: skip
    path.write_text(json.dumps(annotations))
    return annotations


def line(x1: int, y1: int, x2: int, y2: int, name: str = "cat", score: float = 0.9) -> dict[str, object]:
    from streamseg.segment.describe import encode_mask

    mask = encode_mask(np.ones((y2 - y1, x2 - x1), np.uint8), (x1, y1), (64, 48))
    one = {"class": name, "score": score, "box_xyxy": [x1, y1, x2, y2], "mask": mask}
    return {"source": "somewhere/a.jpg", "instances": [one]}


def test_average_precision_by_hand(tmp_path: Path) -> None:
    coco_file(tmp_path / "truth.json")
    truth = Truth(tmp_path / "truth.json")
    exact = average_precision(truth, truth.entries([line(10, 10, 30, 30)]))
    assert (exact["mask"]["AP"], exact["box"]["AP"]) == (pytest.approx(1), pytest.approx(1))
    # 20x14 of 20x20: IoU 0.7 passes 5 of the 10 thresholds from .5 to .95.
    part = average_precision(truth, truth.entries([line(10, 10, 30, 24)]))
    assert part["box"]["AP"] == pytest.approx(0.5, abs=1e-6)
    assert part["box"]["AP50"] == pytest.approx(1)
    wrong = average_precision(truth, truth.entries([line(10, 10, 30, 30, "unicorn")]))
    assert wrong["mask"]["AP"] == wrong["box"]["AP"] == 0
    with pytest.raises(SourceOpenError, match="know nothing"):
        truth.entries([{"source": "b.jpg", "instances": []}])
    with pytest.raises(SourceOpenError, match="no instances"):
        truth.entries([{"source": "a.jpg", "coverage": 0.5}])
    small = {"class": "cat", "mask": {"size": [24, 32], "counts": ""}}
    with pytest.raises(SourceOpenError, match="are of 32x24, and the annotations of 64x48"):
        truth.entries([{"source": "a.jpg", "instances": [small]}])
    whole = coco_file(tmp_path / "truth.json")
    bare = {"id": 9, "image_id": 7, "category_id": 3}
    (tmp_path / "bad.json").write_text(json.dumps({**whole, "annotations": [bare]}))
    with pytest.raises(SourceOpenError, match="annotation 9 lacks"):
        Truth(tmp_path / "bad.json")
    with pytest.raises(SourceOpenError, match=r"cannot read .*: no such file or directory"):
        Truth(tmp_path / "gone.json")
    for content in ("[]", "{", '{"images": []}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(SourceOpenError, match="no COCO annotations"):
            Truth(tmp_path / "bad.json")


# steadiness and lateness


def texture(height: int = 90, width: int = 240) -> NDArray[np.uint8]:
    rough = np.random.default_rng(1).normal(0, 1, (height, width))
    total = sum(ndimage.gaussian_filter(rough, s) * s for s in (1, 3))
    return np.clip(128 + 90 * total, 0, 255).astype(np.uint8)


def pan(step: int, n: int = 8) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    """A picture that moves as a whole, and a matte that moves with it."""
    wide, matte = texture(), np.zeros((90, 240), np.uint8)
    matte[30:60, 90:130] = 255
    cuts = [slice(60 - step * k, 220 - step * k) for k in range(n)]
    return [np.ascontiguousarray(wide[:, c]) for c in cuts], [np.ascontiguousarray(matte[:, c]) for c in cuts]


def test_what_moves_with_the_picture_is_steady() -> None:
    lumas, mattes = pan(3)
    moving = steadiness(mattes, lumas)
    assert moving.warping_error < 2.0
    frozen = steadiness([mattes[0]] * 8, lumas)
    assert frozen.warping_error > 10 * moving.warping_error


def test_steadiness_of_a_still_picture_by_hand() -> None:
    luma = texture()[:, :160]
    on, off = np.full((90, 160), 255, np.uint8), np.full((90, 160), 204, np.uint8)  # 1.0 and 0.8
    found = steadiness([on, off, off, on], [luma] * 4)
    assert found.warping_error == pytest.approx(1e3 * (0.04 + 0 + 0.04) / 3, rel=1e-3)
    assert found.flicker == pytest.approx(1e3 * 0.4 / 3, rel=1e-3)
    assert found.worst_frame in (1, 3)
    with pytest.raises(ValueError, match="at least 2"):
        steadiness([on], [luma])


def walking_square(frames: int) -> list[NDArray[np.uint8]]:
    """Mattes of a square that walks 4 px a frame."""
    mattes = []
    for n in range(frames):
        matte = np.zeros((40, 160), np.uint8)
        matte[10:30, 4 * n : 4 * n + 40] = 255
        mattes.append(matte)
    return mattes


def test_lag_and_stale_area_of_a_delayed_matte() -> None:
    """Found k frames late at 25 fps, the square lags k * 40 ms."""
    reference = walking_square(25)
    times = [n / 25 for n in range(25)]
    assert lateness(reference, reference, times).lag_ms == 0
    for late in (1, 3):
        found = lateness([reference[max(0, n - late)] for n in range(25)], reference, times)
        assert found.lag_ms == pytest.approx(40 * late, abs=4)
        assert found.missed < 0.1
    # 5 frames late: what the square left 3 frames ago and earlier is still there for 2 steps of 4 of its 40 columns.
    found = lateness([reference[max(0, n - 5)] for n in range(25)], reference, times, settle_s=0.12)
    assert found.stale_worst == pytest.approx(2 * 4 / 40)
    assert 0 < found.stale <= found.stale_worst


def test_a_frozen_matte_is_steady_and_fails_by_its_lag() -> None:
    reference = walking_square(30)
    times = [n / 30 for n in range(30)]
    frozen = [reference[0]] * 30
    still = [texture()[:40, :160]] * 30
    assert steadiness(frozen, still).flicker == 0
    found = lateness(frozen, reference, times)
    assert found.missed > 0.3
    assert found.lag_ms > 250
    assert found.stale > 0.2


def test_what_flickers_need_not_be_followed() -> None:
    on, off = np.full((8, 8), 255, np.uint8), np.zeros((8, 8), np.uint8)
    reference = [on, on, off, on, on, on, on, on, on, on]
    assert lateness([on] * 10, reference, [n / 30 for n in range(10)]).lag_ms == 0


# the sheet


def test_a_sheet_shows_right_extra_and_missed(tmp_path: Path) -> None:
    picture = np.full((60, 80, 3), 100, np.uint8)
    found, truth = np.zeros((60, 80), bool), np.zeros((60, 80), bool)
    found[:, :40] = True
    truth[:, 20:60] = True
    painted = overlay(picture, found, truth).astype(int)
    extra, right, missed, none = painted[30, 10], painted[30, 30], painted[30, 50], painted[30, 70]
    assert extra.argmax() == 2
    assert right.argmax() == 1
    assert missed.argmax() == 0
    assert (none == 100).all()
    write_sheet(tmp_path / "sheet.png", [("first", picture)] * 4 + [("tall", np.zeros((200, 50, 3), np.uint8))])
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape[1] == 3 * 430
    assert sheet.shape[0] == 24 + 320 + 24 + 1704
    with pytest.raises(SinkWriteError, match=r"cannot write .*: no such file or directory; choose another place"):
        write_sheet(tmp_path / "no" / "sheet.png", [("first", picture)])
