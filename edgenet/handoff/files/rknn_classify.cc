// Classify with {{ rknn }} on the NPU of a {{ chip }}, or prove that it answers as it did before.
//
//   classify PIXELS.bin     the five likeliest classes of {{ rows }} x {{ columns }} x {{ channels }} bytes, {{ order }}, as golden/*.bin are
//   classify --verify       the golden pictures; exit status 1 where an answer is another one
//
// Run it in this folder. It uses the calls with memory of the NPU's own (rknn_set_io_mem), which every chip has.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "rknn_api.h"

namespace {

constexpr int kRows = {{ rows }}, kColumns = {{ columns }}, kChannels = {{ channels }}, kClasses = {{ classes }};
constexpr float kInputScale = {{ input_scale }};
constexpr int kInputZeroPoint = {{ input_zero_point }};
constexpr float kTolerance = {{ tolerance }};

struct Case {
  const char* name;
  int top1;
};
constexpr Case kCases[] = {
{% for case in cases %}
    {"{{ case.name }}", {{ case.top1 }}},
{% endfor %}
};

std::vector<char> Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path + ": run this in its own folder");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void Check(int status, const char* what) {
  if (status < 0) throw std::runtime_error(std::string(what) + " failed with " + std::to_string(status));
}

class Classifier {
 public:
  Classifier() : model_(Read("{{ rknn }}")) {
    Check(rknn_init(&context_, model_.data(), static_cast<std::uint32_t>(model_.size()), 0, nullptr), "rknn_init");
    std::memset(&input_, 0, sizeof(input_));
    std::memset(&output_, 0, sizeof(output_));
    Check(rknn_query(context_, RKNN_QUERY_INPUT_ATTR, &input_, sizeof(input_)), "asking for the input");
    Check(rknn_query(context_, RKNN_QUERY_OUTPUT_ATTR, &output_, sizeof(output_)), "asking for the output");
    if (input_.type != RKNN_TENSOR_INT8 || output_.type != RKNN_TENSOR_INT8 || input_.zp != kInputZeroPoint ||
        std::fabs(input_.scale - kInputScale) > 1e-6f * kInputScale || output_.n_elems != kClasses)
      throw std::runtime_error("{{ rknn }} is not the file that was handed over");
    input_.pass_through = 1;  // the numbers are the network's own: nothing is to be normalised or quantized
    input_.fmt = RKNN_TENSOR_NHWC;
    input_memory_ = rknn_create_mem(context_, input_.size_with_stride);
    output_memory_ = rknn_create_mem(context_, output_.size_with_stride);
    if (input_memory_ == nullptr || output_memory_ == nullptr) throw std::runtime_error("no memory for the NPU");
    Check(rknn_set_io_mem(context_, input_memory_, &input_), "setting the input");
    Check(rknn_set_io_mem(context_, output_memory_, &output_), "setting the output");
  }

  ~Classifier() {
    if (input_memory_ != nullptr) rknn_destroy_mem(context_, input_memory_);
    if (output_memory_ != nullptr) rknn_destroy_mem(context_, output_memory_);
    rknn_destroy(context_);
  }

  Classifier(const Classifier&) = delete;
  Classifier& operator=(const Classifier&) = delete;

  // Return the scores of kRows x kColumns x kChannels pixels.
  std::vector<float> Scores(const std::vector<char>& pixels) {
    if (pixels.size() != static_cast<std::size_t>(kRows) * kColumns * kChannels)
      throw std::runtime_error("a picture has {{ rows }} x {{ columns }} x {{ channels }} bytes");
    const int row = kColumns * kChannels;
    const int stride = (input_.w_stride > 0 ? static_cast<int>(input_.w_stride) : kColumns) * kChannels;
    auto* to = static_cast<std::int8_t*>(input_memory_->virt_addr);
    for (int y = 0; y < kRows; ++y)
      for (int x = 0; x < row; ++x)
        to[y * stride + x] = static_cast<std::int8_t>(static_cast<unsigned char>(pixels[y * row + x]) - 128);
    Check(rknn_run(context_, nullptr), "rknn_run");
    const auto* from = static_cast<const std::int8_t*>(output_memory_->virt_addr);
    std::vector<float> scores(kClasses);
    for (int i = 0; i < kClasses; ++i) scores[i] = static_cast<float>(from[i] - output_.zp) * output_.scale;
    return scores;
  }

 private:
  std::vector<char> model_;
  rknn_context context_ = 0;
  rknn_tensor_attr input_, output_;
  rknn_tensor_mem* input_memory_ = nullptr;
  rknn_tensor_mem* output_memory_ = nullptr;
};

int Verify(Classifier& classifier) {
  int wrong = 0;
  for (const Case& c : kCases) {
    const std::string place = std::string("golden/") + c.name;
    const std::vector<char> raw = Read(place + "_scores.bin");
    const std::vector<float> scores = classifier.Scores(Read(place + "_pixels.bin"));
    float apart = raw.size() == kClasses * sizeof(float) ? 0.0f : INFINITY;
    for (int i = 0; i < kClasses && apart < INFINITY; ++i) {
      float before;
      std::memcpy(&before, raw.data() + i * sizeof(float), sizeof(float));
      apart = std::max(apart, std::fabs(scores[i] - before));
    }
    const auto top1 = std::max_element(scores.begin(), scores.end()) - scores.begin();
    const bool ok = apart <= kTolerance && top1 == c.top1;
    wrong += !ok;
    std::printf("%-6s %s: a score differs by %.4f at most, allowed %g\n", ok ? "ok" : "FAILED", c.name, apart, kTolerance);
  }
  return wrong == 0 ? 0 : 1;
}

void Print(const std::vector<float>& scores) {
  std::vector<std::string> labels;
  std::ifstream file("labels.txt");
  for (std::string line; std::getline(file, line);) labels.push_back(line);
  std::vector<int> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return scores[a] > scores[b]; });
  for (std::size_t i = 0; i < order.size() && i < 5; ++i)
    std::printf("%s %.3f\n", labels.at(order[i]).c_str(), scores[order[i]]);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s PIXELS.bin | --verify\n", argv[0]);
    return 2;
  }
  Classifier classifier;
  if (std::string(argv[1]) == "--verify") return Verify(classifier);
  Print(classifier.Scores(Read(argv[1])));
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "classify: %s\n", e.what());
  return 3;
}
