"""`streamseg eval`: how good the results are, against ground truth or by their steadiness."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco

from streamseg.effects import Background
from streamseg.errors import ConfigError, SinkWriteError, SourceOpenError
from streamseg.evaluate.alpha import connectivity_error, gradient_error, mean_squared_error
from streamseg.evaluate.bench import table
from streamseg.evaluate.davis import clips, score_masks, truth_of
from streamseg.evaluate.instances import Truth, average_precision
from streamseg.evaluate.mattes import Mask, dtssd, jaccard, mean_absolute_difference
from streamseg.evaluate.semantic import Confusion, mask_files, read_labels, read_opacity, read_picture, read_trimap
from streamseg.evaluate.sheet import overlay, write_sheet
from streamseg.evaluate.stability import lateness, steadiness
from streamseg.frame import Frame, Output, Plane
from streamseg.libav import reason, unwritten
from streamseg.pixels.flow import flow_wh, small_luma
from streamseg.segment.describe import record
from streamseg.segment.load import Segmenter, load_segmenter
from streamseg.segment.store import resolve
from streamseg.sources import open_source

__all__ = ["add_parser", "frames_of", "run"]

# What a tile of the contact sheet shows: how bad it is, its caption, the picture, what was found and what is true.
_Case = tuple[float, str, Path, Mask, Mask | None]
_Report = dict[str, Any]

# Instances below this score are no objects to a user; AP looks at all of them.
_SHOWN_SCORE = 0.25


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `eval` and its five kinds."""
    parser = subparsers.add_parser(
        "eval",
        help="measure quality against ground truth",
        description="Measure results against ground truth, or their steadiness without. Results come from a run "
        "(--results, --matte) or, with --model, from the network alone, every frame, unsmoothed.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="coco | semantic | davis | alpha | steady")

    kind = kinds.add_parser("coco", help="instances: mask and box AP as COCO defines them")
    kind.add_argument("truth", type=Path, metavar="ANNOTATIONS.json")
    source = kind.add_mutually_exclusive_group(required=True)
    source.add_argument("--results", type=Path, metavar="FILE.jsonl", help="written by: streamseg run --results")
    source.add_argument("--model", metavar="NAME", help="run this network on --images")
    kind.add_argument("--images", type=Path, metavar="FOLDER", help="the annotated pictures")
    _finish(kind, _coco)

    kind = kinds.add_parser("semantic", help="classes: PA, MPA, mIoU and Dice")
    kind.add_argument("truth", type=Path, metavar="FOLDER", help="mask files, named as the pictures are")
    kind.add_argument(
        "--format",
        choices=("labels", "mask", "pet"),
        default="mask",
        help="labels: pixel values are classes; mask: all but 0 is the subject (default); pet: Oxford-IIIT Pet trimaps",
    )
    kind.add_argument("--classes", metavar="NAME,...", help="names of the labels, from 0 on; for --format labels")
    source = kind.add_mutually_exclusive_group(required=True)
    source.add_argument("--found", type=Path, metavar="FOLDER", help="label files, or mattes of 0 to 255")
    source.add_argument("--model", metavar="NAME", help="run this network on --images")
    kind.add_argument("--images", type=Path, metavar="FOLDER", help="the pictures, for --model and the sheet")
    kind.add_argument("--keep", default="person", metavar="CLASS,...", help="the subject, with --model")
    _finish(kind, _semantic)

    kind = kinds.add_parser("davis", help="video masks: J and boundary F of every frame")
    kind.add_argument("truth", type=Path, metavar="FOLDER", help="with JPEGImages and Annotations")
    kind.add_argument("--sequence", action="append", default=[], metavar="NAME", help="only these (default: all)")
    kind.add_argument("--near", action="store_true", help="only near the labelled object: bystanders are not labelled")
    source = kind.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--mattes", metavar="PATTERN", help="mattes of a run, {} standing for the sequence, as in out/{}.mkv or out/{}/"
    )
    source.add_argument("--model", metavar="NAME", help="run this network on the pictures")
    kind.add_argument("--keep", default="person", metavar="CLASS,...", help="the subject, with --model")
    _finish(kind, _davis)

    kind = kinds.add_parser("alpha", help="opacity: MAD, MSE, Grad, Conn, dtSSD")
    kind.add_argument("found", metavar="MATTE", help="a matte as video or a folder of pictures")
    kind.add_argument("truth", metavar="TRUTH", help="the same of the true opacity")
    _finish(kind, _alpha)

    kind = kinds.add_parser("steady", help="without ground truth: warping error and flicker, and what they cost in lag")
    kind.add_argument("video", metavar="VIDEO", help="the picture that the matte is of")
    kind.add_argument("matte", metavar="MATTE", help="the matte as video or a folder of pictures")
    kind.add_argument(
        "--reference",
        metavar="MATTE",
        help="a matte without memory, for the lag; written with --set temporal.smoother=none",
    )
    _finish(kind, _steady)


def _finish(kind: argparse.ArgumentParser, function: Any) -> None:
    kind.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here")
    if function not in (_alpha, _steady):
        kind.add_argument("--sheet", type=Path, metavar="FILE.png", help="write the worst frames here, side by side")
        kind.add_argument("--worst", type=int, default=12, metavar="N", help="how many (default: 12)")
    kind.set_defaults(function=run, measure=function)


def run(args: argparse.Namespace) -> int:
    """Measure, print a table and write what was asked for; returns the exit code."""
    report, cases = args.measure(args)
    _print(report)
    if args.json:
        try:
            args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise SinkWriteError(f"cannot write {args.json}: {unwritten(error)}") from error
    if getattr(args, "sheet", None):
        worst = sorted(cases, key=lambda case: case[0])[: max(1, args.worst)]
        if not worst:
            raise ConfigError("there is no picture for the sheet; name the pictures with --images")
        write_sheet(args.sheet, [(caption, overlay(read_picture(path), a, b)) for _, caption, path, a, b in worst])
        print(f"the worst {len(worst)} frames: {args.sheet} (green right, red made up, blue missed)", file=sys.stderr)
    return 0


def _coco(args: argparse.Namespace) -> tuple[_Report, list[_Case]]:
    truth = Truth(args.truth)
    if not truth.coco.anns:
        raise SourceOpenError(f"in {args.truth} no object is annotated, so nothing can be scored")
    if args.results:
        records = _lines(args.results)
    else:
        segmenter = load_segmenter(resolve(args.model).path, confidence=0.001)
        records = [record(Output(frame), segmenter(frame)) for frame in frames_of(str(_needed(args.images)))]
    only = {Path(one["source"]).name for one in records}
    entries = truth.entries(records)
    scores = average_precision(truth, entries, only=sorted(only))
    report = {"pictures": len(only), "instances": len(entries), **scores}
    cases: list[_Case] = []
    for name in sorted(only) if args.images else []:
        found = [e["segmentation"] for e in entries if e["image_id"] == truth.ids[name] and e["score"] >= _SHOWN_SCORE]
        true = [truth.coco.annToRLE(a) for a in truth.coco.imgToAnns[truth.ids[name]]]
        path = args.images / name
        ours, theirs = (_union(codes, read_picture(path).shape[:2]) for codes in (found, true))
        j = jaccard(ours, theirs)
        cases.append((j, f"{name}  union IoU {j:.3f}", path, ours, theirs))
    return report, cases


def _union(codes: Sequence[Any], shape_hw: tuple[int, ...]) -> Mask:
    return coco.decode(coco.merge(codes)).astype(bool) if codes else np.zeros(shape_hw, bool)


def _semantic(args: argparse.Namespace) -> tuple[_Report, list[_Case]]:
    truths = mask_files(args.truth)
    if args.format == "labels":
        if not args.classes or args.model:
            raise ConfigError("labels need --classes with their names, and --found with label files")
        names: Sequence[str] = args.classes.split(",")
    else:
        names = ("background", "subject")
    read = {"labels": read_labels, "mask": lambda path: (read_opacity(path) > 127).view(np.uint8), "pet": read_trimap}
    pictures = mask_files(args.images) if args.images else {}
    confusion, cases = Confusion(names), list[_Case]()
    for key, found in _found_labels(args, truths):
        truth = read[args.format](truths[key])
        if found.shape != truth.shape:
            raise SourceOpenError(f"{key} was found at {found.shape[::-1]} and is true at {truth.shape[::-1]} px")
        confusion.add(found, truth)
        if key in pictures:
            judged = truth < len(names)
            agree = float((found == truth)[judged].mean()) if judged.any() else 1.0
            cases.append(
                (agree, f"{key}  accuracy {agree:.3f}", pictures[key], (found > 0) & judged, (truth > 0) & judged)
            )
    return confusion.scores(), cases


def _found_labels(args: argparse.Namespace, truths: Mapping[str, Path]) -> Iterator[tuple[str, Plane]]:
    if args.found:
        files = mask_files(args.found)
        missing = sorted(truths.keys() - files.keys())
        if missing:
            raise SourceOpenError(f"{args.found} has no mask for {missing[0]}, nor for {len(missing) - 1} others")
        for key in truths:
            labels = args.format == "labels"
            yield key, read_labels(files[key]) if labels else (read_opacity(files[key]) > 127).view(np.uint8)
        return
    segmenter, keep = _subject(args)
    for frame, alpha in _opacities(segmenter, keep, str(_needed(args.images))):
        key = Path(frame.origin.name).stem
        if key in truths:
            yield key, (alpha > 127).view(np.uint8)


def _davis(args: argparse.Namespace) -> tuple[_Report, list[_Case]]:
    runs = _subject(args) if args.model else None
    report: _Report = {}
    cases: list[_Case] = []
    for clip in clips(args.truth, args.sequence):
        if runs is None:
            source = args.mattes.replace("{}", clip.name)
            found = [frame.y.copy() for frame in frames_of(source)]
        else:
            source = str(clip.pictures)
            found = [alpha for _, alpha in _opacities(*runs, source)]
        if len(found) != len(clip.masks):
            raise SourceOpenError(f"{source} has {len(found)} frames, {clip.name} has {len(clip.masks)} masks")
        truths = [truth_of(path) for path in clip.masks]
        try:
            score = score_masks(found, truths, only_near=args.near)
        except ValueError as error:
            raise SourceOpenError(f"{source}: {error}") from error
        report[clip.name] = score.summary()
        pictures = mask_files(clip.pictures)
        for alpha, truth, mask, j in zip(found, truths, clip.masks, score.j, strict=True):
            if mask.stem in pictures:
                found_mask = np.zeros_like(truth)
                rows, columns = (min(sides) for sides in zip(alpha.shape, truth.shape, strict=True))
                found_mask[:rows, :columns] = alpha[:rows, :columns] > 127
                cases.append((j, f"{clip.name} {mask.stem}  J {j:.3f}", pictures[mask.stem], found_mask, truth))
    means = {key: float(np.mean([clip[key] for clip in report.values()])) for key in ("J", "F")}
    worst = {key: min(clip[key] for clip in report.values()) for key in ("J worst", "F worst")}
    return {**report, "all": {**means, **worst}}, cases


def _alpha(args: argparse.Namespace) -> tuple[_Report, list[_Case]]:
    scores: dict[str, list[float]] = {"MAD": [], "MSE": [], "Grad": [], "Conn": [], "dtSSD": []}
    before: tuple[Plane, Plane] | None = None
    for found, truth in ((ours.y, theirs.y) for ours, theirs in _pairs(args.found, args.truth)):
        scores["MAD"].append(mean_absolute_difference(found, truth))
        scores["MSE"].append(mean_squared_error(found, truth))
        scores["Grad"].append(gradient_error(found, truth))
        scores["Conn"].append(connectivity_error(found, truth))
        if before is not None:
            scores["dtSSD"].append(dtssd(np.stack([before[0], found]), np.stack([before[1], truth])))
        before = (found, truth)
    return {
        "frames": len(scores["MAD"]),
        **{name: float(np.mean(values)) for name, values in scores.items() if values},
    }, []


def _steady(args: argparse.Namespace) -> tuple[_Report, list[_Case]]:
    lumas, mattes, times_s = [], [], []
    for picture, matte in _pairs(args.video, args.matte):
        size_wh = flow_wh((picture.width, picture.height))
        lumas.append(small_luma(picture.y, size_wh))
        mattes.append(_reduced(matte.y, size_wh))
        times_s.append(picture.seconds)
    if len(lumas) < 2:
        raise SourceOpenError(f"{args.video} has {len(lumas)} frames; steadiness needs two")
    report: _Report = {"frames": len(lumas), **asdict(steadiness(mattes, lumas))}
    if args.reference:
        size_wh = (lumas[0].shape[1], lumas[0].shape[0])
        reference = [_reduced(frame.y, size_wh) for frame in frames_of(args.reference)]
        if len(reference) != len(mattes):
            raise SourceOpenError(f"{args.reference} has {len(reference)} frames, {args.matte} has {len(mattes)}")
        report.update(asdict(lateness(mattes, reference, times_s)))
    return report, []


def _reduced(matte: Plane, size_wh: tuple[int, int]) -> Plane:
    return cv2.resize(matte, size_wh, interpolation=cv2.INTER_AREA)


def _pairs(url: str, other_url: str) -> Iterator[tuple[Frame, Frame]]:
    """Frame by frame; what differs in size or ends early is an error."""
    others = frames_of(other_url)
    for n, frame in enumerate(frames_of(url)):
        other = next(others, None)
        if other is None:
            raise SourceOpenError(f"{other_url} ends after {n} frames, before {url}")
        if other.y.shape != frame.y.shape:
            sizes = f"{other.width}x{other.height}, not {frame.width}x{frame.height}"
            raise SourceOpenError(f"{other_url} is {sizes} as {url} is, at frame {n}")
        yield frame, other
    if next(others, None) is not None:
        raise SourceOpenError(f"{url} ends before {other_url}")


def frames_of(url: str) -> Iterator[Frame]:
    """The pictures of a source that ends."""
    source = open_source(url)
    try:
        while (frame := source.read()) is not None:
            source.take_packets()
            yield frame
    finally:
        source.close()


def _subject(args: argparse.Namespace) -> tuple[Segmenter, frozenset[int] | None]:
    """The network, and which of its classes are the subject; None where it tells none apart."""
    segmenter = load_segmenter(resolve(args.model).path)
    names = segmenter.class_names
    wanted = args.keep.split(",")
    if len(names) <= 1:
        return segmenter, None
    for name in wanted:
        if name not in names:
            raise ConfigError(f"the network knows no class {name!r}; it knows {', '.join(names)}")
    return segmenter, frozenset(names.index(name) for name in wanted)


def _opacities(segmenter: Segmenter, keep: Iterable[int] | None, url: str) -> Iterator[tuple[Frame, Plane]]:
    """Every frame and its (H, W) opacity without the padding to even sides, every frame for itself."""
    ids = None if keep is None else frozenset(keep)
    effect = Background(None)
    for frame in frames_of(url):
        alpha = effect.opacity(frame, segmenter(frame).matte(ids))
        width, height = frame.origin.size_wh
        yield frame, alpha[:height, :width]


def _needed(images: Path | None) -> Path:
    if images is None:
        raise ConfigError("--model needs --images, the folder of the pictures")
    return images


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except OSError as error:
        raise SourceOpenError(f"cannot read {path}: {reason(error)}") from error
    except ValueError as error:
        raise SourceOpenError(f"cannot read {path}: it is no file of JSON lines") from error
    if not records or not all(isinstance(one, dict) and "source" in one for one in records):
        raise SourceOpenError(f"{path} holds no results of streamseg run; name what --results wrote")
    return records


def _print(report: Mapping[str, Any]) -> None:
    """Plain numbers as a list; groups of them as a table, a group a row."""
    groups = {name: value for name, value in report.items() if isinstance(value, Mapping)}
    for name, value in report.items():
        if name not in groups:
            print(f"{name.replace('_', ' '):<16} {_shown(value)}")
    for name, group in groups.items():
        if any(isinstance(value, Mapping) for value in group.values()):
            print(f"{name}:")
            _print(group)
    rows = {name: group for name, group in groups.items() if not any(isinstance(v, Mapping) for v in group.values())}
    if not rows:
        return
    columns = list(dict.fromkeys(key for group in rows.values() for key in group))
    cells = [[name, *(_shown(group[key]) if key in group else "" for key in columns)] for name, group in rows.items()]
    print(table([["", *columns], *cells]))


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
