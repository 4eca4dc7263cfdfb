"""A copy of ONNX Runtime that takes this processor for one with AVX2 and no AVX-512, for measurements (x86-64 Linux).

    PYTHONPATH=$(python benchmarks/without_avx512.py FOLDER) python benchmarks/runtimes.py --only cpu ...

ONNX Runtime chooses its kernels by what CPUID and XGETBV say, and has no switch. In the copy, made in FOLDER, every
XGETBV says that the operating system saves no AVX-512 registers. That it works shows in int8, whose sums saturate
without VNNI: the answers differ.
"""

from __future__ import annotations

import argparse
import shutil
from importlib.util import find_spec
from pathlib import Path

_XGETBV = bytes.fromhex("0f01d0")
# What follows it, and the whole that leaves only the bits of x87, SSE and AVX: `and al, 7` where the compiler put a
# move of eax to itself, and `mov al, 7` in place of the instruction itself elsewhere.
_CHANGES = {"89c0": "0f01d02407", "c1ef1a": "b00790c1ef1a"}


def copied(folder: Path) -> Path:
    """Make the copy; the folder to put in front of Python's path."""
    found = find_spec("onnxruntime")
    if found is None or found.origin is None:
        raise SystemExit("onnxruntime is not installed")
    shutil.copytree(Path(found.origin).parent, folder / "onnxruntime", dirs_exist_ok=True)
    (library,) = (folder / "onnxruntime/capi").glob("onnxruntime_pybind11_state*.so")
    code = library.read_bytes()
    for after, instead in _CHANGES.items():
        wanted = _XGETBV + bytes.fromhex(after)
        if wanted not in code:
            raise SystemExit(f"{library.name} was compiled otherwise than 1.31.1: no {wanted.hex()} in it")
        code = code.replace(wanted, bytes.fromhex(instead))
    library.write_bytes(code)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    print(copied(parser.parse_args().folder).resolve())
