"""edgenet: take a trained image classifier to a phone, a board or an edge accelerator, and prove what it cost."""

import importlib
import os
from typing import Any

# NumPy's BLAS spins on the cores that the runtimes' own threads compute on: with more than one thread, rounding weights
# took four times as long. It reads this once, when NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"

__all__ = ["run"]


def run(
    module: Any, *, example_input: Any, images: Any, out: Any, progress: Any = lambda *_: None, **options: Any
) -> Any:
    """Take a PyTorch classifier to measured files, as `edgenet run` does with a file; return its `Results`.

    Args:
        module: a torch.nn.Module that gives (1, classes) scores. It is exported by torch.onnx in inference mode, and
            left as it was.
        example_input: (1, 3, H, W) float32 tensor of the size that the files will take.
        images: folder of photographs, "sample" or "tfds:NAME".
        out: folder for what is made, report.html and results.json among it.
        progress: called with (what is being done, done, in all).
        options: those of `edgenet run` by their names in Python: preprocess="torch", formats="all",
            precisions=("int8",), labels="labels.txt", ...

    Raises:
        edgenet.errors.InputError: an argument is wrong, or the module cannot be exported.
        edgenet.errors.MissingDependency: torch or onnxscript is not installed.
    """
    # Everything imports this package, so that it can import nothing of its own: the work is looked up when asked for.
    work = importlib.import_module("edgenet.jobs.pytorch")
    return work.run(module, example_input, images, out, progress, options)
