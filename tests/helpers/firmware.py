"""Compiles a hand-over for a microcontroller on this machine, against stand-ins for tflite-micro's headers.

No package brings those headers. The stand-ins declare what main.cc calls, as tflite-micro declares it, and answer with
the golden scores, one of them spoilt where the program is compiled with -DSPOILT.
"""

import shutil
import subprocess
from pathlib import Path

HEADERS = ("micro_interpreter", "micro_log", "micro_mutable_op_resolver", "system_setup")
COMPILER = shutil.which("g++")
_STAND_IN = """\
#pragma once
#include <cstdio>
#include <cstring>
#include "golden_data.h"
#define MicroPrintf(...) (std::printf(__VA_ARGS__), std::printf("\\n"))
#define TF_LITE_ENSURE_STATUS(a) do { if ((a) != kTfLiteOk) return kTfLiteError; } while (0)
#define TFLITE_SCHEMA_VERSION 3
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
union TfLitePtrUnion { void* data; };
struct TfLiteTensor { TfLitePtrUnion data; };
namespace tflite {
inline void InitializeTarget() {}
struct Model { int version() const { return 3; } };
inline const Model* GetModel(const void*) { static Model model; return &model; }
template <unsigned int n> struct MicroMutableOpResolver {
  unsigned int added = 0;
  TfLiteStatus Add() { return ++added <= n ? kTfLiteOk : kTfLiteError; }
ADDED};
class MicroInterpreter {
 public:
  template <class R> MicroInterpreter(const Model*, const R& r, unsigned char*, std::size_t) : complete_(r.added > 0) {}
  TfLiteStatus AllocateTensors() { return complete_ ? kTfLiteOk : kTfLiteError; }
  std::size_t arena_used_bytes() const { return 1; }
  TfLiteTensor* input(int) { input_.data.data = in_; return &input_; }
  TfLiteTensor* output(int) { output_.data.data = out_; return &output_; }
  TfLiteStatus Invoke() {
    if (std::memcmp(in_, edgenet::kGoldenInputs[case_], sizeof(in_)) != 0) return kTfLiteError;
    std::memcpy(out_, edgenet::kGoldenOutputs[case_++], sizeof(out_));
#ifdef SPOILT
    out_[1] += 1;
#endif
    return kTfLiteOk;
  }
 private:
  bool complete_;
  int case_ = 0;
  edgenet::Input in_[edgenet::kInputs];
  edgenet::Output out_[edgenet::kOutputs];
  TfLiteTensor input_, output_;
};
}  // namespace tflite
"""


def built(folder: Path, operators: list[str], out: Path, *flags: str) -> Path:
    """Compile a hand-over into the program `out`; any warning is an error."""
    include = out.parent / "include"
    micro, schema = include / "tensorflow/lite/micro", include / "tensorflow/lite/schema"
    micro.mkdir(parents=True, exist_ok=True)
    schema.mkdir(parents=True, exist_ok=True)
    added = "".join(f"  TfLiteStatus Add{name}() {{ return Add(); }}\n" for name in operators)
    (include / "stand_in.h").write_text(_STAND_IN.replace("ADDED", added))
    for path in (*(micro / f"{name}.h" for name in HEADERS), schema / "schema_generated.h"):
        path.write_text('#include "stand_in.h"\n')
    sources = [str(folder / name) for name in ("main.cc", "model_data.cc", "golden_data.cc")]
    warnings = ["-Wall", "-Wextra", "-Werror", "-std=c++17"]
    command = [str(COMPILER), *warnings, *flags, f"-I{include}", f"-I{folder}", *sources, "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return out


def run(program: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program)], capture_output=True, text=True, timeout=60, check=False)
