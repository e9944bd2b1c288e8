"""`python -m bitfit_export` is `bitfit`, for what starts modules, such as `torchrun -m bitfit_export train ...`."""

from __future__ import annotations

import sys

from bitfit_export.cli import main

if __name__ == "__main__":
    sys.exit(main())
