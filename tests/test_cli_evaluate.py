"""`streamseg eval` on small truths, by its own parser: what it prints, writes and refuses."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamseg.cli import evaluate
from streamseg.errors import ConfigError, SourceOpenError
from tests.networks import matte, yolo_seg


def measure(*words: object) -> int:
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers())
    args = parser.parse_args(["eval", *map(str, words)])
    return int(args.function(args))


def numbers(*words: object, to: Path) -> dict[str, Any]:
    assert measure(*words, "--json", to) == 0
    return dict(json.loads(to.read_text()))


def write(path: Path, picture: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
    return picture


def square(x: int, *, height: int = 64, width: int = 96) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[16:48, x : x + 32] = 255
    return mask


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two sequences of three frames: a red square that stays, and one that walks."""
    for name, step in (("stay", 0), ("walk", 8)):
        for n in range(3):
            mask = write(tmp_path / f"davis/Annotations/480p/{name}/{n:05}.png", square(16 + step * n))
            picture = np.full((64, 96, 3), 60, np.uint8)
            picture[mask > 0] = (20, 20, 230)
            write(tmp_path / f"davis/JPEGImages/480p/{name}/{n:05}.jpg", picture)
            write(tmp_path / f"out/{name}/{n:05}.png", square(16))  # always where it began
    return tmp_path / "davis"


def test_davis_mattes_of_a_run(davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    found = numbers(
        "davis", davis, "--mattes", tmp_path / "out/{}", "--sheet", sheet, "--worst", 2, to=tmp_path / "n.json"
    )
    assert found["stay"]["J"] == found["stay"]["F"] == 1
    # The square is 32 wide: overlaps of 24 and 16 columns.
    assert found["walk"]["J"] == pytest.approx((1 + 24 / 40 + 16 / 48) / 3)
    assert found["walk"]["worst frame"] == 2
    assert found["all"]["J"] == pytest.approx((1 + found["walk"]["J"]) / 2)
    assert found["all"]["J worst"] == pytest.approx(1 / 3)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:2] == ["J", "F"]
    assert [row.split()[0] for row in printed[1:]] == ["stay", "walk", "all"]
    assert cv2.imread(str(sheet)).shape[1] == 2 * 430


def test_davis_with_a_network(davis: Path, tmp_path: Path) -> None:
    network = matte(tmp_path / "red.onnx", size=64)
    found = numbers("davis", davis, "--model", network, "--sequence", "walk", to=tmp_path / "n.json")
    assert set(found) == {"walk", "all"}
    assert found["walk"]["J"] > 0.85


def test_pet_trimaps_with_a_network(tmp_path: Path) -> None:
    trimap = np.full((64, 96), 2, np.uint8)
    trimap[16:48, 16:48] = 1
    trimap[12:16] = trimap[48:52] = 3
    trimap[:, 12:16] = trimap[:, 48:52] = 3
    write(tmp_path / "trimaps/cat_1.png", trimap)
    picture = np.full((64, 96, 3), 60, np.uint8)
    picture[16:48, 16:48] = (20, 20, 230)
    write(tmp_path / "images/cat_1.jpg", picture)
    network = matte(tmp_path / "red.onnx", size=64)
    found = numbers(
        "semantic", tmp_path / "trimaps", "--format", "pet", "--model", network, "--images", tmp_path / "images",
        "--sheet", tmp_path / "sheet.png", to=tmp_path / "n.json",
    )  # fmt: skip
    assert found["mIoU"] > 0.97, "the unsure rim does not count"
    assert set(found["classes"]) == {"background", "subject"}
    assert (tmp_path / "sheet.png").exists()


def test_label_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "true/a/1.png", np.uint8([[0, 0, 1, 2]]))
    write(tmp_path / "found/a/1.png", np.uint8([[0, 1, 1, 2]]))
    words = ("semantic", tmp_path / "true", "--found", tmp_path / "found")
    found = numbers(*words, "--format", "labels", "--classes", "road,car,sky", to=tmp_path / "n.json")
    assert found["PA"] == 0.75
    assert found["classes"]["car"]["Dice"] == pytest.approx(2 / 3)
    assert "road" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--classes"):
        measure(*words, "--format", "labels")
    with pytest.raises(ConfigError, match="--images"):
        measure(*words, "--sheet", tmp_path / "sheet.png")
    (tmp_path / "found/a/1.png").rename(tmp_path / "found/a/2.png")
    with pytest.raises(SourceOpenError, match="no mask for a/1"):
        measure(*words)


def coco_truth(tmp_path: Path) -> Path:
    annotations = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [16, 16, 32, 32], "area": 1024, "iscrowd": 0,
             "segmentation": [[16, 16, 48, 16, 48, 48, 16, 48]]},
        ],
    }  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(annotations))
    write(tmp_path / "images/a.png", np.full((64, 64, 3), 90, np.uint8))
    return tmp_path / "truth.json"


# pycocotools' decode has not caught up with numpy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_with_a_network(tmp_path: Path) -> None:
    """One detection, exactly the annotated square: its prototype is positive everywhere, so the box is the mask."""
    detection = np.float32([[32], [32], [32], [32], [0.9], [0], [0], [1]])  # cx cy w h, three classes, one coefficient
    network = yolo_seg(tmp_path / "net.onnx", detection, np.full((1, 16, 16), 5, np.float32))
    words = ("coco", coco_truth(tmp_path), "--model", network, "--images", tmp_path / "images")
    found = numbers(*words, "--sheet", tmp_path / "sheet.png", to=tmp_path / "n.json")
    assert found["box"]["AP"] == pytest.approx(1)
    assert found["mask"]["AP"] == pytest.approx(1)
    assert (found["pictures"], found["instances"]) == (1, 1)
    with pytest.raises(ConfigError, match="--images"):
        measure("coco", tmp_path / "truth.json", "--model", network)


def test_coco_results_of_a_run(tmp_path: Path) -> None:
    truth, lines = coco_truth(tmp_path), tmp_path / "r.jsonl"
    lines.write_text(json.dumps({"source": "a.png", "instances": []}) + "\n")
    assert numbers("coco", truth, "--results", lines, to=tmp_path / "n.json")["mask"]["AP"] == 0
    lines.write_text("no json\n")
    with pytest.raises(SourceOpenError, match="JSON lines"):
        measure("coco", truth, "--results", lines)
    for strange in ("", "{}\n", "[1]\n"):
        lines.write_text(strange)
        with pytest.raises(SourceOpenError, match="holds no results of streamseg run"):
            measure("coco", truth, "--results", lines)
    lines.unlink()
    with pytest.raises(SourceOpenError, match="no such file or directory"):
        measure("coco", truth, "--results", lines)
    truth.write_text(json.dumps({**json.loads(truth.read_text()), "annotations": []}))
    with pytest.raises(SourceOpenError, match="no object is annotated"):
        measure("coco", truth, "--results", lines)


def test_alpha_of_folders(tmp_path: Path) -> None:
    for n in range(3):
        truth = write(tmp_path / f"true/{n}.png", square(16))
        write(tmp_path / f"found/{n}.png", truth // 255 * (255 if n == 1 else 204))
    found = numbers("alpha", tmp_path / "found", tmp_path / "true", to=tmp_path / "n.json")
    share = 32 * 32 / (64 * 96)
    assert found["MAD"] == pytest.approx(1e3 * share * 0.2 * 2 / 3, rel=0.01)
    assert found["MSE"] == pytest.approx(1e3 * share * 0.04 * 2 / 3, rel=0.02)
    assert found["dtSSD"] == pytest.approx(1e2 * np.sqrt(share * 0.04), rel=0.01)
    assert found["Conn"] > 0
    assert found["Grad"] > 0
    (tmp_path / "true/2.png").unlink()
    with pytest.raises(SourceOpenError, match="ends after 2 frames"):
        measure("alpha", tmp_path / "found", tmp_path / "true")
    with pytest.raises(SourceOpenError, match="ends before"):
        measure("alpha", tmp_path / "true", tmp_path / "found")


def test_steadiness_has_its_price_beside_it(tmp_path: Path) -> None:
    for n in range(10):
        write(tmp_path / f"video/{n}.png", np.full((64, 96, 3), 90, np.uint8))
        write(tmp_path / f"raw/{n}.png", square(16 if n < 5 else 40))
        write(tmp_path / f"frozen/{n}.png", square(16))
    words = ("steady", tmp_path / "video", tmp_path / "frozen")
    assert "lag_ms" not in numbers(*words, to=tmp_path / "n.json")
    found = numbers(*words, "--reference", tmp_path / "raw", to=tmp_path / "n.json")
    assert found["flicker"] == 0
    assert found["missed"] == 1
    assert found["lag_ms"] == pytest.approx(500)
    (tmp_path / "raw/9.png").unlink()
    with pytest.raises(SourceOpenError, match="has 9 frames"):
        measure(*words, "--reference", tmp_path / "raw")


def test_unknown_classes_and_sizes_are_told(davis: Path, tmp_path: Path) -> None:
    network = yolo_seg(tmp_path / "net.onnx", np.zeros((8, 1), np.float32), np.zeros((1, 16, 16), np.float32))
    with pytest.raises(ConfigError, match="no class 'cat'; it knows person, bicycle, car"):
        measure("davis", davis, "--model", network, "--keep", "cat")
    for name in ("stay", "walk"):
        for n in range(3):
            write(tmp_path / f"out/{name}/{n:05}.png", square(16, width=64))
    with pytest.raises(SourceOpenError, match="a matte of 64x64 for a truth of 96x64"):
        measure("davis", davis, "--mattes", tmp_path / "out/{}")
