// Runs the golden pictures of {{ name }} and compares every score: call it first on a new board.
// It builds with tflite-micro (https://github.com/tensorflow/tflite-micro); the Ethos-U, CMSIS-NN and ESP-NN kernels
// are chosen when that is built.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "golden_data.h"
#include "model_data.h"
#include "model_settings.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

alignas(16) std::uint8_t arena[edgenet::kArenaBytes];

// The operators of this model, and no others: each one registered is linked.
using Resolver = tflite::MicroMutableOpResolver<{{ operators | length }}>;

TfLiteStatus Register(Resolver& resolver) {
{% for operator in operators %}
  TF_LITE_ENSURE_STATUS(resolver.Add{{ operator }}());
{% endfor %}
  return kTfLiteOk;
}

bool Same(edgenet::Output score, edgenet::Output golden) {
  return std::fabs(static_cast<float>(score) - static_cast<float>(golden)) <= edgenet::kTolerance;
}

}  // namespace

int main() {
  tflite::InitializeTarget();
  const tflite::Model* model = tflite::GetModel(edgenet::kModel);
  if (model->version() != TFLITE_SCHEMA_VERSION) {
    MicroPrintf("the model's schema is %d, this firmware's %d", model->version(), TFLITE_SCHEMA_VERSION);
    return 1;
  }
  static Resolver resolver;
  if (Register(resolver) != kTfLiteOk) return 1;
  static tflite::MicroInterpreter interpreter(model, resolver, arena, sizeof(arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    MicroPrintf("the arena of %d bytes is too small for these kernels", static_cast<int>(sizeof(arena)));
    return 1;
  }
  MicroPrintf("arena: %d of %d bytes", static_cast<int>(interpreter.arena_used_bytes()),
              static_cast<int>(sizeof(arena)));
  int failed = 0;
  for (int i = 0; i < edgenet::kGoldenCases; ++i) {
    std::memcpy(interpreter.input(0)->data.data, edgenet::kGoldenInputs[i], sizeof(edgenet::kGoldenInputs[i]));
    if (interpreter.Invoke() != kTfLiteOk) return 1;
    const edgenet::Output* scores = static_cast<const edgenet::Output*>(interpreter.output(0)->data.data);
    int different = 0;
    for (int k = 0; k < edgenet::kOutputs; ++k) {
      if (!Same(scores[k], edgenet::kGoldenOutputs[i][k])) ++different;
    }
    MicroPrintf("golden picture %d: %d of %d scores differ", i, different, edgenet::kOutputs);
    if (different > 0) ++failed;
  }
  MicroPrintf(failed == 0 ? "PASS" : "FAIL");
  return failed == 0 ? 0 : 1;
}
