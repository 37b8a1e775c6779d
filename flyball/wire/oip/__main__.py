"""`python -m flyball.wire.oip --home DIR --port N`: the data plane."""

from __future__ import annotations

import os
import sys

# Before NumPy and scikit-learn are imported: on few cores their thread pools make small batches 2–6 times slower.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from flyball.wire.oip.process import main  # noqa: E402 (see above)

if __name__ == "__main__":
    sys.exit(main())
