"""A child process: compile an .onnx for a Hexagon with onnxruntime-qnn, and see that what was written loads.

    python -m edgenet.device_bench.qnn.compile_onnx MODEL COMPILED QNN_ID

writes beside COMPILED, an .onnx: its context binary, what QNN estimates (PROFILE), what it took (TRACE), and in the end
DONE, the sizes of what belongs together. It is a program of its own because a compiler may crash.
"""

import json
import os
import sys
from pathlib import Path

from edgenet.device_bench.qnn.htp_runtime import session

PROFILE, TRACE, DONE = "profile.csv", "qnn_op_trace.json", "done.json"


def main(model: str, compiled: str, qnn_id: str) -> None:
    """Compile `model` to `compiled`. Raises what onnxruntime does."""
    out = Path(compiled)
    folder = out.parent
    entries = {"ep.context_enable": "1", "ep.context_embed_mode": "0", "ep.context_file_path": compiled}
    profile = {"profiling_level": "basic", "profiling_file_path": str(folder / PROFILE)}
    trace = {"enable_framework_op_trace": "1", "framework_op_trace_dir": str(folder)}
    # onnxruntime hashes the path it reads from into the names of what it compiles: the same file has to give the same.
    os.chdir(Path(model).parent)
    session(Path(model).name, qnn_id, entries, **profile, **trace)
    session(compiled, qnn_id, {})
    written = [out, *sorted(folder.glob(f"{out.stem}_qnn*.bin"))]
    (folder / DONE).write_text(json.dumps({p.name: p.stat().st_size for p in written}))


if __name__ == "__main__":
    main(*sys.argv[1:])
