"""The table of faults: how soon each is noticed, and how soon all is well again; see tests/faults.py.

    python benchmarks/faults.py --times 5 --json faults.json
    python benchmarks/faults.py --only kill,stop

The faults of cameras and virtual cameras are in tests/guest, in a virtual machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.faults import FAULTS, Bench


def main() -> None:
    """Run the faults and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--only", default=",".join(FAULTS))
    parser.add_argument("--json")
    args = parser.parse_args()
    table = {}
    print(f"{'fault':10} {'detect s: median, worst':>25} {'recover s: median, worst':>26}  notes")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for name in args.only.split(","):
            result = FAULTS[name](bench, args.times)
            seen = {output: asdict(pictures) for output, pictures in result.seen.items()}
            table[name] = {"detect_s": result.detect_s, "recover_s": result.recover_s, "seen": seen, **result.notes}
            notes = f"{seen}  {result.notes}"
            print(f"{name:10} {_words(result.detect_s):>25} {_words(result.recover_s):>26}  {notes}", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=1))


def _words(values: list[float]) -> str:
    return f"{sorted(values)[len(values) // 2]:.2f}, {max(values):.2f}" if values else "-"


if __name__ == "__main__":
    main()
