// What the firmware has to know of {{ name }}. Written by edgenet from the model file.
#ifndef EDGENET_MODEL_SETTINGS_H_
#define EDGENET_MODEL_SETTINGS_H_

#include <cstddef>
#include <cstdint>

namespace edgenet {

// What tflite-micro's reference kernels need, rounded up to 16 bytes. Optimized kernels (CMSIS-NN, ESP-NN) may need
// scratch memory on top: where AllocateTensors() fails, raise it, and read interpreter.arena_used_bytes().
constexpr std::size_t kArenaBytes = {{ arena_bytes }};

// One picture: {{ order }}, rows from the top, {{ pixel }}.
constexpr int kHeight = {{ height_px }};
constexpr int kWidth = {{ width_px }};
constexpr int kChannels = {{ channels }};
using Input = {{ input_type }};
constexpr int kInputs = kHeight * kWidth * kChannels;

// {{ scores }}
constexpr int kOutputs = {{ n_outputs }};
using Output = {{ output_type }};
constexpr float kOutputScale = {{ output_scale }};
constexpr int kOutputZeroPoint = {{ output_zero_point }};

// How far a score may be from the golden one: integers are the same to the bit.
constexpr float kTolerance = {{ tolerance }};

}  // namespace edgenet

#endif  // EDGENET_MODEL_SETTINGS_H_
