"""edgenet: take a trained image classifier to a phone, a board or an edge accelerator, and prove what it cost."""

import os

# NumPy's BLAS spins on the cores that the runtimes' own threads compute on: with more than one thread, rounding weights
# took four times as long. It reads this once, when NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
