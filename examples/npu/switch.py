"""Open a program once, and run several tasks with it: a switch feeds another row.

    python examples/npu/switch.py BUNDLE TEXT

BUNDLE comes from `bitfit-export --target qnn`. Prints the sizes of what is fixed and of
what moves, and how long a row takes to load.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from bitfit_export.runtime import BiasSession


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("text", metavar="TEXT")
    options = parser.parse_args()
    session = BiasSession(options.bundle)
    manifest = session.manifest
    accelerator = manifest.accelerator
    if accelerator is None:
        parser.error(f"{options.bundle} is not a bundle of --target qnn")
    print(f"runs on: {session.device}")
    fixed = manifest.files[accelerator.binary].size
    print(f"fixed: {accelerator.binary}, {fixed:,} bytes, for the HTP {accelerator.arch}")
    for name, task in manifest.tasks.items():
        size = (options.bundle / task.file).stat().st_size
        started = time.perf_counter()
        session.load_task(options.bundle / task.file)
        took = 1e3 * (time.perf_counter() - started)
        print(f"moves: {name}, {size:,} bytes, loaded in {took:.1f} ms; to switch to it is another pointer")
    for name in manifest.tasks:
        print(name, session.predict(options.text, name))


if __name__ == "__main__":
    main()
