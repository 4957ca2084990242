// What this processor can do at most: multiply-adds in registers, and reads from each level of its
// memory.  Compiled and called by roofline.py; every function returns the best of many short runs.

#include <chrono>
#include <cstdint>

namespace {

typedef float Vector __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
constexpr std::int64_t kLanes = VECTOR_BYTES / sizeof(float);

double now() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

// Highest rate of `work`, which returns how much it did, over so many seconds.
template <typename Work>
double best_rate(double seconds, Work work) {
  const double end = now() + seconds;
  double best = 0;
  do {
    const double start = now();
    const double done = work();
    const double rate = done / (now() - start);
    if (rate > best) best = rate;
  } while (now() < end);
  return best;
}

inline Vector keep(Vector v) {
  asm volatile("" : "+v"(v));
  return v;
}

}  // namespace

extern "C" {

// FLOP/s of multiply-adds whose operands stay in registers.
double multiply_add_rate(double seconds) {
  constexpr int kChains = 12;
  Vector sums[kChains] = {};
  Vector a = Vector{} + 1.0000001f, b = Vector{} + 1e-9f;
  return best_rate(seconds, [&] {
    constexpr int kTurns = 20000;
    for (int turn = 0; turn < kTurns; ++turn)
      for (int i = 0; i < kChains; ++i) sums[i] = keep(sums[i] * a + b);
    return 2.0 * kTurns * kChains * kLanes;
  });
}

// Bytes/s read from a buffer, from front to back, over and over.
double read_rate(const float* buffer, std::int64_t bytes, double seconds) {
  constexpr int kChains = 8;
  const std::int64_t vectors = bytes / VECTOR_BYTES / kChains * kChains;
  const std::int64_t turns = 1 + (std::int64_t{8} << 20) / bytes;
  Vector sums[kChains] = {};
  return best_rate(seconds, [&] {
    for (std::int64_t turn = 0; turn < turns; ++turn)
      for (std::int64_t v = 0; v < vectors; v += kChains)
        for (int i = 0; i < kChains; ++i)
          sums[i] += *reinterpret_cast<const Vector*>(buffer + (v + i) * kLanes);
    for (int i = 0; i < kChains; ++i) sums[i] = keep(sums[i]);
    return static_cast<double>(turns * vectors * VECTOR_BYTES);
  });
}

// Bytes/s of whole rows, `vectors` (1, 2, 4 or 8) vectors long, read in the given order: the way a
// sparse product reads its tile, without its arithmetic.
double row_rate(const float* buffer, const std::int32_t* order, std::int64_t rows, int vectors,
                double seconds) {
  const auto pass = [&](auto constant) {
    constexpr int kVectors = decltype(constant)::value, kSets = 8 / kVectors;
    Vector sums[8] = {};
    for (std::int64_t r = 0; r + kSets <= rows; r += kSets)
      for (int set = 0; set < kSets; ++set) {
        const float* const row = buffer + order[r + set] * (kVectors * kLanes);
        for (int i = 0; i < kVectors; ++i)
          sums[set * kVectors + i] += *reinterpret_cast<const Vector*>(row + i * kLanes);
      }
    for (int i = 0; i < 8; ++i) sums[i] = keep(sums[i]);
    return static_cast<double>(rows / kSets * kSets * kVectors * VECTOR_BYTES);
  };
  struct One { enum { value = 1 }; };
  struct Two { enum { value = 2 }; };
  struct Four { enum { value = 4 }; };
  struct Eight { enum { value = 8 }; };
  return best_rate(seconds, [&] {
    if (vectors == 1) return pass(One{});
    if (vectors == 2) return pass(Two{});
    if (vectors == 4) return pass(Four{});
    return pass(Eight{});
  });
}
}
