// Numbers of bfloat16: how they are packed, and made floats and back.  Included by kernels.inl.

namespace regrow {
namespace {

// Samples of a packed row that lie a vector apart share a word, so that a vector of words is made
// two vectors of numbers by a shift and a mask, on any processor.

template <int L>
using Words = Vector<uint32_t, L>;

// The nearest numbers of bfloat16, ties to even, in the upper halves; the lower halves hold anything.
template <int L>
REGROW_INLINE Words<L> nearest(Vector<float, L> v) {
  const Words<L> bits = reinterpret_cast<Words<L>>(v);
  const Words<L> rounded = bits + 0x7FFFu + (bits >> 16 & 1u);
  return v == v ? rounded : bits | 0x400000u;
}

// Vector n of a packed row.
template <typename T, int L, typename A>
REGROW_INLINE Vector<T, L> vector_at(const A* row, int n) {
  if constexpr (sizeof(A) == sizeof(T)) {
    return load<Vector<T, L>>(row + n * L);
  } else {
    const Words<L> words = load<Words<L>>(row + n / 2 * (2 * L));
    return reinterpret_cast<Vector<T, L>>(n % 2 == 0 ? words << 16 : words & 0xFFFF0000u);
  }
}

// Packs `count` numbers, a multiple of two vectors.
REGROW_INLINE void narrow(const float* source, BFloat16* target, int64_t count) {
  constexpr int L = kLanes<float>;
  for (int64_t i = 0; i < count; i += 2 * L) {
    const Words<L> low = nearest<L>(load<Vector<float, L>>(source + i)) >> 16;
    const Words<L> high = nearest<L>(load<Vector<float, L>>(source + i + L)) & 0xFFFF0000u;
    *reinterpret_cast<Words<L>*>(target + i) = low | high;
  }
}

// Rows of bfloat16 as rows of the float that they stand for, and back.
template <int L>
using Halves = Vector<uint16_t, L>;

REGROW_INLINE void raise(const BFloat16* source, float* target, int64_t count) {
  constexpr int L = kLanes<float>;
  const uint16_t* const from = &source->bits;
  int64_t i = 0;
  for (; i + L <= count; i += L) {
    const Words<L> words = __builtin_convertvector((load_unaligned<uint16_t, L>(from + i)), Words<L>);
    store_unaligned<float, L>(target + i, reinterpret_cast<Vector<float, L>>(words << 16));
  }
  for (; i < count; ++i) {
    const uint32_t word = uint32_t{from[i]} << 16;
    __builtin_memcpy(target + i, &word, sizeof word);
  }
}
REGROW_INLINE void lower(const float* source, BFloat16* target, int64_t count) {
  constexpr int L = kLanes<float>;
  uint16_t* const to = &target->bits;
  for (int64_t i = 0; i < count; i += L) {
    const Words<L> words = nearest<L>(load_unaligned<float, L>(source + i)) >> 16;
    const Halves<L> halves = __builtin_convertvector(words, Halves<L>);
    if (i + L <= count) {
      store_unaligned<uint16_t, L>(to + i, halves);
    } else {
      for (int64_t j = i; j < count; ++j) to[j] = halves[j - i];
    }
  }
}

// The turns of operands of bfloat16.
void turn_in(const BFloat16* source, int64_t stride, float* target, int32_t width, int64_t samples,
             int64_t features) {
  alignas(64) float rows[kWidest<float> * kBlock];
  for (int64_t f = 0; f < features; f += kBlock) {
    const int64_t count = f + kBlock < features ? kBlock : features - f;
    for (int64_t s = 0; s < samples; ++s) raise(source + s * stride + f, rows + s * kBlock, count);
    turn_in(rows, kBlock, target + f * width, width, samples, count);
  }
}
void turn_out(const float* source, int32_t width, BFloat16* target, int64_t stride,
              int64_t samples, int64_t features) {
  alignas(64) float rows[kWidest<float> * kBlock];
  for (int64_t f = 0; f < features; f += kBlock) {
    const int64_t count = f + kBlock < features ? kBlock : features - f;
    turn_out(source + f * width, width, rows, kBlock, samples, count);
    for (int64_t s = 0; s < samples; ++s) lower(rows + s * kBlock, target + s * stride + f, count);
  }
}

}  // namespace
}  // namespace regrow
