"""The weights of one small network that tests write in all three formats, and pictures for it."""

import numpy as np

RNG = np.random.default_rng(0)
PX = 32
KERNEL = RNG.normal(0, 0.3, (3, 3, 3, 16)).astype(np.float32)
DENSE = RNG.normal(0, 0.5, (16, 7)).astype(np.float32)
FLOATS = RNG.normal(0, 1, (21, PX, PX, 3)).astype(np.float32)
