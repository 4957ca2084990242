// Operands between the memory and the kernels: packing, layouts, and what is asked for ahead.
// Included by kernels.inl.

namespace regrow {
namespace {

// Asks for the cache lines that hold features [first, first + count) of some samples, of those up to
// `last`.  The rows of a row-major operand are too many for a prefetcher to follow each of them, and
// those of a feature-major one that a tile has a part of are far apart.
template <typename T>
REGROW_INLINE void prefetch_samples(const T* operand, int64_t stride, int64_t samples, int64_t first,
                                    int64_t count, int64_t last) {
  constexpr int64_t kLine = 64 / int64_t{sizeof(T)};
  for (int64_t f = first; f < first + count && f < last; f += kLine) {
    // The last one, for the line of the first may have been asked for with those before it.
    const T* const feature = operand + (f + kLine < last ? f + kLine : last) - 1;
    for (int64_t s = 0; s < samples; ++s) __builtin_prefetch(feature + s * stride, 0, 2);
  }
}

template <typename T>
REGROW_INLINE void prefetch_features(const T* operand, int64_t pitch, int64_t samples,
                                     int64_t first, int64_t count, int64_t last) {
  constexpr int64_t kLine = 64 / int64_t{sizeof(T)};
  for (int64_t f = first; f < first + count && f < last; ++f)
    for (int64_t s = 0; s < samples; s += kLine)
      __builtin_prefetch(operand + f * pitch + s, 0, 2);
}

template <typename T>
REGROW_INLINE void prefetch(const T* operand, int64_t pitch, int64_t features, int64_t samples,
                            int64_t first, int64_t count, int64_t last) {
  if (pitch) return prefetch_features(operand, pitch, samples, first, count, last);
  prefetch_samples(operand, features, samples, first, count, last);
}

REGROW_INLINE bool positive_or_nan(float number) { return !(number <= 0); }
REGROW_INLINE bool positive_or_nan(double number) { return !(number <= 0); }
REGROW_INLINE bool positive_or_nan(BFloat16 number) {
  return static_cast<uint16_t>(number.bits - 1) < 0x7FFF || number.bits > 0xFF80;
}

// A row of `width` from fewer samples, padded with zeros.
template <typename T>
REGROW_INLINE void copy_padded(const T* source, T* target, int64_t samples, int32_t width) {
  copy(source, target, samples);
  for (int64_t s = samples; s < width; ++s) target[s] = T(0);
}

// Packs a feature-major operand, whose samples are next to each other already.
template <typename T>
void pack_features(const PackUnit<T>& unit) {
  for (int64_t f = unit.first; f < unit.last; ++f) {
    prefetch_features(unit.source, unit.pitch, unit.samples, f + kBlock, 1, unit.last);
    copy_padded(unit.source + f * unit.pitch, unit.packed + f * unit.width, unit.samples,
                unit.width);
  }
}

// Zeros in features [first, last) that are packed, by a feature-major gate.
template <typename T>
void pass_features(const PackUnit<T>& unit, int64_t first, int64_t last) {
  for (int64_t f = first; f < last; ++f) {
    prefetch_features(unit.gate, unit.gate_pitch, unit.samples, f + kBlock, 1, unit.last);
    const T* const gate = unit.gate + f * unit.gate_pitch;
    T* const packed = unit.packed + f * unit.width;
    for (int64_t s = 0; s < unit.samples; ++s)
      packed[s] = positive_or_nan(gate[s]) ? packed[s] : T(0);
  }
}

template <typename T, typename A>
void pack(const PackUnit<T, A>& unit) {
  if constexpr (sizeof(A) == sizeof(T)) {
    if (unit.pitch) {
      pack_features(unit);
      if (unit.gate) pass_features(unit, unit.first, unit.last);
      return;
    }
  }
  // Blocks of features, so that the target is still in the cache when its rows are filled up.
  constexpr bool kPlain = sizeof(A) == sizeof(T);
  constexpr int64_t kStep = (kPlain ? 4 : 2) * kBlock;
  alignas(64) A passed[kStep * kWidest<T>];
  alignas(64) T turned[kPlain ? 1 : kStep * kWidest<T>];
  for (int64_t f = unit.first; f < unit.last; f += kStep) {
    const int64_t count = f + kStep < unit.last ? kStep : unit.last - f;
    const A* source = unit.source + f;
    int64_t stride = unit.features;
    prefetch_samples(unit.source, stride, unit.samples, f + kStep, kStep, unit.last);
    if (unit.gate && !unit.gate_pitch) {
      prefetch_samples(unit.gate, stride, unit.samples, f + kStep, kStep, unit.last);
      for (int64_t s = 0; s < unit.samples; ++s) {
        const A* const gate = unit.gate + s * stride + f;
        for (int64_t i = 0; i < count; ++i)
          passed[s * kStep + i] = positive_or_nan(gate[i]) ? source[s * stride + i] : A{};
      }
      source = passed;
      stride = kStep;
    }
    A* const packed = unit.packed + f * unit.width;
    if constexpr (kPlain) {
      turn_in(source, stride, packed, unit.width, unit.samples, count);
      if (unit.gate_pitch) pass_features(unit, f, f + count);
    } else {
      turn_in(source, stride, turned, unit.width, unit.samples, count);
      narrow(turned, packed, count * unit.width);
    }
  }
}

// Rows of a packed operand come in any order, which no prefetcher of a processor foresees: a row is
// asked for so many connections before its turn.  That is for rows of few cache lines; while one of
// many is read, the processor has time to look ahead by itself.
constexpr int64_t kSoon = 8;
constexpr int64_t kFewBytes = 128;

// How far to look ahead in connections that end before `end`, of `all`: not beyond the last one.
REGROW_INLINE int64_t soon(int64_t end, int64_t all) { return end + kSoon <= all ? kSoon : 0; }

template <int Width, typename A>
REGROW_INLINE void prefetch_row(const A* packed, int32_t index) {
  constexpr int64_t kBytes = Width * int64_t{sizeof(A)};
  if constexpr (kBytes <= kFewBytes) {
    const A* const row = packed + static_cast<int64_t>(index) * Width;
    for (int64_t byte = 0; byte < kBytes; byte += 64)
      __builtin_prefetch(row + byte / int64_t{sizeof(A)}, 0, 3);
  }
}

// Rows of a tile, each with its samples side by side: in a block, or in the memory, where they are
// whole rows of a feature-major operand.
template <typename T>
struct Rows {
  T* data;
  int64_t step;
};
template <typename T, typename A>
REGROW_INLINE Rows<T> rows_of(A* operand, int64_t pitch, int64_t first, int64_t samples, T* block,
                              int32_t width) {
  if constexpr (sizeof(A) == sizeof(T))
    if (pitch && samples == width) return {operand + first * pitch, pitch};
  return {block, width};
}

// Features [first, first + count) of a tile between their place in the memory and a block.
template <typename T, typename A>
REGROW_INLINE void bring_in(const A* source, int64_t pitch, int64_t features, int64_t first,
                            T* block, int32_t width, int64_t samples, int64_t count) {
  if (!pitch) return turn_in(source + first, features, block, width, samples, count);
  if constexpr (sizeof(A) == sizeof(T))
    for (int64_t f = 0; f < count && samples < width; ++f)
      copy_padded(source + (first + f) * pitch, block + f * width, samples, width);
}
template <typename T, typename A>
REGROW_INLINE void bring_out(const T* block, int32_t width, A* target, int64_t pitch,
                             int64_t features, int64_t first, int64_t samples, int64_t count) {
  if (!pitch) return turn_out(block, width, target + first, features, samples, count);
  if constexpr (sizeof(A) == sizeof(T))
    for (int64_t f = 0; f < count && samples < width; ++f)
      copy(block + f * width, target + (first + f) * pitch, samples);
}

// Connections are read front to back, but between loads at random places, which hide that from the
// prefetcher of a processor: so far ahead they are asked for.  A line that is beyond the last one
// does no harm.
constexpr int64_t kStream = 512;

template <int Write = 0, typename T>
REGROW_INLINE void prefetch_stream(const T* stream, int64_t first, int64_t last) {
  constexpr int64_t kLine = 64 / int64_t{sizeof(T)};
  for (int64_t k = first; k < last; k += kLine) __builtin_prefetch(stream + k + kStream, Write, 3);
}

}  // namespace
}  // namespace regrow
