"""What runner.py loads in the place of runtime.py to answer for a Hexagon: compiled files in QNN's emulator.

The emulator computes what the NPU does, on this machine, in the integers of the chip that the file was compiled for.
A file is ONNX with nodes EPContext, each of which names a context binary; whatever else it has runs on the CPU, as on
the phone.
"""

import os
from typing import Any

from edgenet.export.runtime import LoadError, MissingRuntime, Predictor, _OnnxRuntime

__all__ = ["LoadError", "MissingRuntime", "import_runtime", "load"]

NAME, PROVIDER = "qnn", "QNNExecutionProvider"


def import_runtime(path: str, runtime: str | None = None) -> str:
    """Import onnxruntime and Qualcomm's provider, so that loading after is only that. Raises MissingRuntime."""
    if runtime not in (None, NAME) or not path.endswith(".onnx"):
        raise LoadError(f"{NAME} reads .onnx files that are compiled for a Hexagon, not {path} in {runtime}")
    _import()
    return NAME


def load(path: Any, threads: int = 1, runtime: str | None = None, delegate: str | None = None) -> Predictor:
    """Load a compiled file. `delegate` is QNN's number of the chip. Raises LoadError."""
    path = os.fspath(path)
    import_runtime(path, runtime)
    try:
        return Predictor(path, _Htp(path, delegate or ""), threads)
    except LoadError:
        raise
    except Exception as e:  # onnxruntime has its own, undocumented set of exceptions
        raise LoadError(f"the emulator cannot load {path}: {' '.join(str(e).split())[:300]}") from e


def session(path: str, qnn_id: str, entries: dict[str, str], **options: str) -> Any:
    """Return an onnxruntime session of a file on the NPU of a chip.

    Args:
        path: an .onnx file.
        qnn_id: QNN's number of the chip.
        entries: of the session's configuration.
        options: of the provider.
    """
    ort, qnn = _import()
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    for key, value in entries.items():
        settings.add_session_config_entry(key, value)
    devices = [d for d in ort.get_ep_devices() if d.ep_name == PROVIDER]
    if not devices:
        raise LoadError(f"onnxruntime {ort.__version__} finds no device of {PROVIDER}: install edgenet[qnn] again")
    settings.add_provider_for_devices(devices, {"backend_path": qnn.get_qnn_htp_path(), "soc_model": qnn_id, **options})
    return ort.InferenceSession(path, settings)


class _Htp(_OnnxRuntime):
    runtime = NAME

    def __init__(self, path: str, qnn_id: str) -> None:
        self._qnn_id = qnn_id
        super().__init__(path, 1)
        self.version, self.delegate = str(_import()[1].__version__), "HTP emulator"

    def _open(self, path: str, threads: int) -> Any:
        return session(path, self._qnn_id, {})

    def lanes(self, n: int) -> "list[_OnnxRuntime]":
        return [self]


_imported: tuple[Any, Any] | None = None


def _import() -> tuple[Any, Any]:
    """Return onnxruntime, with Qualcomm's provider registered, and its package."""
    global _imported
    if _imported is None:
        try:
            import onnxruntime
            import onnxruntime_qnn
        except ImportError:
            raise MissingRuntime(
                "emulating a Hexagon needs onnxruntime-qnn, which is not installed: pip install 'edgenet[qnn]'"
            ) from None
        onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
        _imported = onnxruntime, onnxruntime_qnn
    return _imported
