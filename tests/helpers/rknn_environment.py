"""An environment of rknn-toolkit2 for tests: a folder as `devices prepare rknn` leaves it, whose toolkit is a double.

The double has the toolkit's interface and answers by onnxruntime, so that all of edgenet's own code runs: the script
that the other interpreter runs, the protocol, the files. `RKNN_DOUBLE` makes it misbehave: refuse, crash, half, silent,
hang. What it prints while it compiles is a real log.
"""

import json
import sys
from pathlib import Path

LOG = Path(__file__).parents[1] / "device_bench/rknn/lite0_rk3588.log"
_TOOLKIT = """
import os, signal, time
from pathlib import Path

MODE = os.environ.get("RKNN_DOUBLE", "")


class RKNN:
    def __init__(self, verbose=False):
        self.verbose = verbose

    def config(self, target_platform, optimization_level):
        assert target_platform.islower() and optimization_level == 2
        return 0

    def load_onnx(self, model):
        self.model = model
        return 0

    def build(self, do_quantization):
        assert do_quantization is False
        if MODE == "refuse":
            print("\\x1b[1;31mE\\x1b[0m \\x1b[1;31mbuild: The Conv('x') not supported 'float16' dtype!\\x1b[0m")
            print("\\x1b[1;31mE\\x1b[0m \\x1b[1;31mrknn-toolkit2 version: 2.5.0\\x1b[0m")
            raise ValueError("Traceback (most recent call last):\\nValueError: The Conv('x') not supported!")
        if MODE == "silent":
            return -1
        if MODE == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if MODE == "hang":
            time.sleep(60)
        if self.verbose:
            print(Path(LOG).read_text())
        return 0

    def export_rknn(self, path):
        Path("check0_base_optimize.onnx").write_text("what the toolkit leaves where it stands")
        Path(path).write_bytes(b"RKNN" + bytes(1000 if MODE == "half" else 5_000_000))
        return 0

    def init_runtime(self, target):
        import onnxruntime
        self.session = onnxruntime.InferenceSession(self.model, providers=["CPUExecutionProvider"])
        return 0

    def inference(self, inputs, data_format):
        assert data_format == ["nchw"]
        if MODE == "crash-later":
            os.kill(os.getpid(), signal.SIGKILL)
        return self.session.run(None, {self.session.get_inputs()[0].name: inputs[0]})
"""


def make_environment(folder: Path) -> Path:
    """Make the environment in `folder`, which EDGENET_RKNN has to name; return the folder."""
    packages = folder / "double"
    (packages / "rknn" / "api").mkdir(parents=True)
    (packages / "rknn" / "__init__.py").touch()
    (packages / "rknn" / "api" / "__init__.py").write_text(f"LOG = {str(LOG)!r}\n{_TOOLKIT}")
    known = packages / "rknn_toolkit2-2.5.0.dist-info"
    known.mkdir()
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: rknn-toolkit2\nVersion: 2.5.0\n")
    python = folder / "bin" / "python"
    python.parent.mkdir()
    # -I keeps an environment to itself; here it has to find the double.
    python.write_text(f'#!/bin/sh\nshift\nPYTHONPATH={packages} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (folder / "edgenet.json").write_text(json.dumps({"python": "3.11.7", "packages": {"rknn-toolkit2": "2.5.0"}}))
    return folder
