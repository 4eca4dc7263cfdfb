"""Runs in another interpreter, one that has ultralytics: a checkpoint goes in, an ONNX file comes out.

Read as text and passed to `python -c`, because the folder of a script is where Python looks for modules first, and this
one has an `inspect.py`. It stands alone: nothing of streamseg can be imported here. The working folder is a temporary
one. The only argument is a JSON object; the result goes into `result.json`.
"""

import importlib.metadata
import json
import pathlib
import sys
from typing import Any


def stand_in_for_torchvision() -> None:
    """Ultralytics reads the version of torchvision when it is imported; an export uses nothing else of it."""
    try:
        importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        folder = pathlib.Path("torchvision-0.0.0.dist-info").absolute()
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.0.0\n")
        sys.path.insert(0, str(folder.parent))


def export(order: "dict[str, Any]") -> "dict[str, Any]":
    """Carry out the order; what goes into `result.json`."""
    stand_in_for_torchvision()
    import torch  # type: ignore[import-not-found,unused-ignore]
    import ultralytics
    from ultralytics.cfg import DEFAULT_CFG_DICT

    options = {key: order[key] for key in ("imgsz", "dynamic", "opset") if order[key] is not None}
    if order["half"]:
        # The option was renamed in 8.4.
        options.update({"quantize": 16} if "quantize" in DEFAULT_CFG_DICT else {"half": True})
    model = ultralytics.YOLO(order["checkpoint"])
    exported = model.export(format="onnx", device="cpu", simplify=True, **options)
    versions = {"ultralytics": ultralytics.__version__, "torch": torch.__version__}
    return {"onnx": str(exported), "task": model.task, "versions": versions}


def main() -> None:
    """Leave a result or, in one line, why there is none."""
    try:
        result = export(json.loads(sys.argv[1]))
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        result = {"error": f"{type(error).__name__}: {first}"}
    pathlib.Path("result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
