"""`streamseg doctor` and `streamseg devices`: what is there, what really works, and the remedy for what does not."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

import streamseg
from streamseg.app import versions
from streamseg.errors import ConfigError, ModelLoadError
from streamseg.segment.inspect import inspect_onnx
from streamseg.segment.ladder import probe
from streamseg.segment.store import local_models
from streamseg.sinks.encoders import probe_encoders
from streamseg.sources.cameras import list_cameras, modes_text
from streamseg.sources.hardware import probe as probe_decoders
from streamseg.temporal.library_tracks import LibraryTracker

if TYPE_CHECKING:  # of Linux only
    from streamseg.sinks.v4l2 import Loopback

__all__ = ["add_parser"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `remedy` is what to do about it; what is `optional` may be missing."""

    subject: str
    ok: bool
    found: str
    remedy: str = ""
    optional: bool = False

    @property
    def mark(self) -> str:
        """ok, -- for something optional that is missing, or FAIL."""
        return "ok  " if self.ok else "--  " if self.optional else "FAIL"


def add_parser(commands: Any) -> None:
    """Add both commands to the parser."""
    doctor = commands.add_parser("doctor", help="check this machine and say what to do about what is missing")
    doctor.set_defaults(function=_doctor)
    devices = commands.add_parser("devices", help="list cameras and virtual cameras")
    devices.set_defaults(function=_devices)


def _doctor(args: argparse.Namespace) -> int:
    findings = list(_findings())
    for finding in findings:
        print(f"{finding.mark}  {finding.subject}: {finding.found}")
        if finding.remedy:
            print(f"      -> {finding.remedy}")
    bad = sum(not finding.ok and not finding.optional for finding in findings)
    print(f"{bad} of {len(findings)} checks failed" if bad else "nothing is wrong")
    return 1 if bad else 0


def _devices(args: argparse.Namespace) -> int:
    if sys.platform != "linux":
        print(f"devices cannot be listed on {platform.system()} yet; name a camera with camera:NAME or 0")
        return 0
    from streamseg.sinks.v4l2 import loopback_devices

    cameras, virtual = list_cameras(), loopback_devices()
    print("cameras:" if cameras else "cameras: none")
    for camera in cameras:
        print(f"  {camera.path}  {camera.name}  [{camera.driver}]")
        print(f"      {modes_text(camera.modes)}")
    print("virtual cameras:" if virtual else "virtual cameras: none")
    for device in virtual:
        print(f"  {device.path}  {device.name}  {_state(device)}")
    for path, problem in _unreadable():
        print(f"  {path}: {problem}")
    return 0


def _state(device: Loopback) -> str:
    words = [f"{device.size_wh[0]}x{device.size_wh[1]}"] if device.size_wh else []
    for what, found in (("written by", device.writers), ("read by", device.readers)):
        if found:
            words.append(f"{what} {', '.join(map(str, found))}")
    if not device.writers:
        words.append("free")
    if device.exclusive_caps is False:
        words.append("without exclusive_caps, so browsers and Zoom may not list it")
    return ", ".join(words)


def _unreadable() -> Iterator[tuple[str, str]]:
    """Video devices that this user may not open."""
    for node in sorted(Path("/dev").glob("video*")):
        if not os.access(node, os.R_OK | os.W_OK):
            yield str(node), "no permission; add yourself to the group `video` and log in anew"


def _findings() -> Iterator[Finding]:
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    yield Finding("streamseg", True, f"{streamseg.__version__} with {packages}")
    yield _python()
    libraries = ", ".join(f"{name} {'.'.join(map(str, number))}" for name, number in av.library_versions.items())
    yield Finding("ffmpeg libraries", True, f"PyAV {av.__version__}: {libraries}")
    missing = [name for name in ("libx264", "libvpx-vp9", "ffv1") if name not in av.codecs_available]
    yield Finding(
        "encoders",
        not missing,
        f"missing: {', '.join(missing)}" if missing else "libx264, libvpx-vp9, ffv1",
        'install the wheel of PyAV, which carries them: pip install --force-reinstall --only-binary=av "av>=15"'
        if missing
        else "",
    )
    yield from _hardware()
    yield from _clashes()
    yield _tracking()
    yield from _providers()
    yield _models()
    yield from _video()


def _hardware() -> Iterator[Finding]:
    """What decodes and encodes on a card of its own."""
    decoders = probe_decoders()
    for kind, codecs, trouble in decoders:
        said = f"decodes {', '.join(codecs)}" if codecs else f"not usable: {trouble}"
        remedy = f"--hwaccel {kind} or auto takes it" if codecs else ""
        yield Finding(f"hardware decoding {kind}", bool(codecs), said, remedy, optional=True)
    if not decoders:
        yield Finding("hardware decoding", False, "this FFmpeg was built without", optional=True)
    encoders = probe_encoders()
    good = [name for name, trouble in encoders if not trouble]
    bad = ", ".join(name for name, trouble in encoders if trouble)
    said = f"{', '.join(good)} encode a picture" if good else f"none of {bad} opens" if bad else "none in this FFmpeg"
    remedy = f"--encoder {good[0]} or auto takes it" if good else ""
    yield Finding("hardware encoders", bool(good), said, remedy, optional=True)


def _python() -> Finding:
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    remedy = "" if fits else "use Python 3.11, 3.12 or 3.13"
    return Finding("python", fits, f"{platform.python_version()} on {platform.platform()}", remedy)


def _clashes() -> Iterator[Finding]:
    """Packages that overwrite each other's files when both are installed."""
    pairs = (
        ("onnxruntime", ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")),
        ("opencv", ("opencv-python-headless", "opencv-python", "opencv-contrib-python")),
    )
    for subject, names in pairs:
        installed = [name for name in names if _installed(name)]
        if len(installed) > 1:
            remedy = f"pip uninstall -y {' '.join(installed)}, then install the one you want again"
            # Of one version, the headless files differ by what shows windows, which nothing here does.
            alike = subject == "opencv" and len({importlib.metadata.version(name) for name in installed}) == 1
            found = f"{' and '.join(installed)} overwrite each other{', which is harmless in one version' * alike}"
            yield Finding(f"{subject} packages", False, found, remedy, alike)
        elif not installed:
            remedy = 'pip install "streamseg[cpu]", or "streamseg[gpu]" for NVIDIA' if subject == "onnxruntime" else (
                "pip install opencv-python-headless")  # fmt: skip
            optional = subject == "onnxruntime" and _installed("openvino")
            yield Finding(f"{subject} packages", False, "none installed", remedy, optional)
        else:
            yield Finding(f"{subject} packages", True, installed[0])


def _tracking() -> Finding:
    """The package behind `instances.tracker: bytetrack`."""
    try:
        LibraryTracker()
    except ConfigError as error:
        found, _, remedy = str(error).partition("; take builtin, or ")
        return Finding("tracking by a library", False, found, remedy, optional=True)
    return Finding("tracking by a library", True, f"trackers {importlib.metadata.version('trackers')}")


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _providers() -> Iterator[Finding]:
    probed = probe()
    processor = any(ok for name, ok, _ in probed if name in ("cpu", "openvino"))
    for name, ok, found in probed:
        # The processor always serves, through one or the other; the rest is there to be faster.
        optional = name != "cpu" or processor
        why = found.removeprefix(f"execution provider {name!r} cannot run: ")
        said = f"builds a session ({found})" if ok else f"not usable: {why}"
        yield Finding(f"execution provider {name}", ok, said, optional=optional)


def _models() -> Finding:
    found = local_models()
    names = ", ".join(sorted(found)) or "none yet"
    for path, _ in found.values():
        try:
            inspect_onnx(path)
        except ModelLoadError as error:
            wrong, _, remedy = str(error).partition("; ")
            return Finding("models at hand", False, wrong, remedy)
    remedy = "" if found else "`streamseg models pull selfie`, or run anything: --model auto fetches it"
    return Finding("models at hand", bool(found), names, remedy, optional=True)


def _video() -> Iterator[Finding]:
    if sys.platform != "linux":
        return
    from streamseg.sinks.v4l2 import loopback_devices

    cameras = [f"{camera.path} ({camera.name})" for camera in list_cameras()]
    virtual = [f"{device.path} ({device.name})" for device in loopback_devices()]
    remedy = "" if cameras else "plug one in; files work without"
    yield Finding("cameras", bool(cameras), ", ".join(cameras) or "none", remedy, optional=True)
    remedy = (
        "" if virtual else "for a virtual camera: apt install v4l2loopback-dkms, modprobe v4l2loopback exclusive_caps=1"
    )
    yield Finding("virtual cameras", bool(virtual), ", ".join(virtual) or "none", remedy, optional=True)
    for path, problem in _unreadable():
        found, _, remedy = problem.partition("; ")
        yield Finding(f"device {path}", False, found, remedy)
