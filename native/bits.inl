// One bit a position: what leads between values and a dense strip of rows, so that no index is read,
// and which scores are worth a look.  Included by kernels.inl.

#if REGROW_VECTOR_BYTES >= 32
#include <immintrin.h>
#endif

namespace regrow {
namespace {

constexpr int kBits = 16;  // of a word
// Values are asked for so far ahead: steps of their own length are not what a prefetcher waits for.
constexpr int64_t kLater = 512;

// Of `columns` positions from a word on, as a mask of those that the row has.
REGROW_INLINE uint32_t within(int64_t columns) {
  return columns >= kBits ? 0xFFFFu : (1u << columns) - 1u;
}

#if REGROW_VECTOR_BYTES == 64

REGROW_INLINE const float* expand_word(uint32_t word, uint32_t row, const float* values,
                                       const float*, float* dense) {
  const __mmask16 mask = static_cast<__mmask16>(word);
  _mm512_mask_storeu_ps(dense, static_cast<__mmask16>(row),
                        _mm512_maskz_expandloadu_ps(mask, values));
  return values + __builtin_popcount(word);
}

REGROW_INLINE const double* expand_word(uint32_t word, uint32_t row, const double* values,
                                        const double*, double* dense) {
  for (int half = 0; half < 2; ++half, word >>= 8, row >>= 8) {
    _mm512_mask_storeu_pd(dense + 8 * half, static_cast<__mmask8>(row),
                          _mm512_maskz_expandloadu_pd(static_cast<__mmask8>(word), values));
    values += __builtin_popcount(word & 0xFFu);
  }
  return values;
}

REGROW_INLINE float* compress_word(uint32_t word, const float* dense, float* values,
                                   const float*) {
  const __mmask16 mask = static_cast<__mmask16>(word);
  const int count = __builtin_popcount(word);
  _mm512_mask_storeu_ps(values, static_cast<__mmask16>(within(count)),
                        _mm512_maskz_compress_ps(mask, _mm512_maskz_loadu_ps(mask, dense)));
  return values + count;
}

REGROW_INLINE double* compress_word(uint32_t word, const double* dense, double* values,
                                    const double*) {
  for (int half = 0; half < 2; ++half, word >>= 8) {
    const __mmask8 mask = static_cast<__mmask8>(word);
    const int count = __builtin_popcount(word & 0xFFu);
    _mm512_mask_storeu_pd(
        values, static_cast<__mmask8>((1u << count) - 1u),
        _mm512_maskz_compress_pd(mask, _mm512_maskz_loadu_pd(mask, dense + 8 * half)));
    values += count;
  }
  return values;
}

REGROW_INLINE uint32_t above_word(const float* scores, uint32_t row, float bar) {
  const __mmask16 mask = static_cast<__mmask16>(row);
  return _mm512_mask_cmp_ps_mask(mask, _mm512_maskz_loadu_ps(mask, scores), _mm512_set1_ps(bar),
                                 _CMP_GT_OQ);
}

REGROW_INLINE uint32_t above_word(const double* scores, uint32_t row, double bar) {
  uint32_t found = 0;
  for (int half = 0; half < 2; ++half) {
    const __mmask8 mask = static_cast<__mmask8>(row >> 8 * half);
    found |= static_cast<uint32_t>(_mm512_mask_cmp_pd_mask(
                 mask, _mm512_maskz_loadu_pd(mask, scores + 8 * half), _mm512_set1_pd(bar),
                 _CMP_GT_OQ))
             << 8 * half;
  }
  return found;
}

#else

template <typename T>
REGROW_INLINE uint32_t above_word(const T* scores, uint32_t row, T bar) {
  uint32_t found = 0;
  if (row == 0xFFFFu) {
    for (int i = 0; i < kBits; ++i) found |= static_cast<uint32_t>(scores[i] > bar) << i;
  } else {
    for (int i = 0; row >> i; ++i) found |= static_cast<uint32_t>(scores[i] > bar) << i;
  }
  return found;
}

template <typename T>
REGROW_INLINE const T* expand_word(uint32_t word, uint32_t row, const T* values, const T*,
                                   T* dense) {
  if (word == 0xFFFFu) {
    for (int i = 0; i < kBits; ++i) dense[i] = values[i];
    return values + kBits;
  }
  for (int i = 0; row >> i; ++i) dense[i] = T{0};
  for (; word; word &= word - 1) dense[__builtin_ctz(word)] = *values++;
  return values;
}

template <typename T>
REGROW_INLINE T* compress_word(uint32_t word, const T* dense, T* values, const T*) {
  if (word == 0xFFFFu) {
    for (int i = 0; i < kBits; ++i) values[i] = dense[i];
    return values + kBits;
  }
  for (; word; word &= word - 1) *values++ = dense[__builtin_ctz(word)];
  return values;
}

#if REGROW_VECTOR_BYTES == 32

// For each byte of marks, where its 8 positions and their values find each other.
struct Lanes {
  int8_t value_of[256][8];     // the value of a position; below zero where it has none
  int8_t position_of[256][8];  // the position of a value; those beyond the last are not used
};
constexpr Lanes lanes_of_marks() {
  Lanes lanes{};
  for (int marks = 0; marks < 256; ++marks) {
    int8_t count = 0;
    for (int8_t lane = 0; lane < 8; ++lane) {
      const bool marked = marks >> lane & 1;
      lanes.value_of[marks][lane] = marked ? count : int8_t{-1};
      if (marked) lanes.position_of[marks][count++] = lane;
    }
  }
  return lanes;
}
constexpr Lanes kMarked = lanes_of_marks();

REGROW_INLINE __m256i lanes(const int8_t* eight) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(eight)));
}

// Vectors are read and written whole, so the last values before the end are taken one by one.
REGROW_INLINE const float* expand_word(uint32_t word, uint32_t row, const float* values,
                                       const float* end, float* dense) {
  if (row != 0xFFFFu || end - values < kBits)
    return expand_word<float>(word, row, values, end, dense);
  for (int half = 0; half < 2; ++half, word >>= 8) {
    const uint32_t marks = word & 0xFFu;
    const __m256i from = lanes(kMarked.value_of[marks]);
    const __m256 found = _mm256_permutevar8x32_ps(_mm256_loadu_ps(values), from);
    _mm256_storeu_ps(dense + 8 * half,
                     _mm256_blendv_ps(found, _mm256_setzero_ps(), _mm256_castsi256_ps(from)));
    values += __builtin_popcount(marks);
  }
  return values;
}

REGROW_INLINE float* compress_word(uint32_t word, const float* dense, float* values,
                                   const float* end) {
  if (end - values < kBits) return compress_word<float>(word, dense, values, end);
  for (int half = 0; half < 2; ++half, word >>= 8) {
    const uint32_t marks = word & 0xFFu;
    _mm256_storeu_ps(values, _mm256_permutevar8x32_ps(_mm256_loadu_ps(dense + 8 * half),
                                                      lanes(kMarked.position_of[marks])));
    values += __builtin_popcount(marks);
  }
  return values;
}

REGROW_INLINE uint32_t above_word(const float* scores, uint32_t row, float bar) {
  if (row != 0xFFFFu) return above_word<float>(scores, row, bar);
  const auto above = [=](const float* eight) REGROW_LAMBDA {
    return _mm256_movemask_ps(
        _mm256_cmp_ps(_mm256_loadu_ps(eight), _mm256_set1_ps(bar), _CMP_GT_OQ));
  };
  return static_cast<uint32_t>(above(scores) | above(scores + 8) << 8);
}

#endif
#endif

template <typename T>
void expand(const BitsUnit<T>& unit) {
  const T* values = unit.values;
  const T* const end = values + unit.count;
  const int64_t words = (unit.columns + kBits - 1) / kBits;
  for (int64_t row = unit.first; row < unit.last; ++row) {
    const uint16_t* const bits = unit.bits + row * words;
    T* const dense = unit.dense + row * unit.columns;
    for (int64_t w = 0; w < words; ++w) {
      __builtin_prefetch(values + kLater, 0, 3);
      values = expand_word(bits[w], within(unit.columns - kBits * w), values, end,
                           dense + kBits * w);
    }
  }
}

template <typename T>
void compress(const BitsUnit<T>& unit) {
  T* values = unit.target;
  const T* const end = values + unit.count;
  const int64_t words = (unit.columns + kBits - 1) / kBits;
  for (int64_t row = unit.first; row < unit.last; ++row) {
    const uint16_t* const bits = unit.bits + row * words;
    const T* const dense = unit.dense + row * unit.columns;
    for (int64_t w = 0; w < words; ++w) {
      __builtin_prefetch(values + kLater, 1, 3);
      values = compress_word(bits[w], dense + kBits * w, values, end);
    }
  }
}

// A bit for each of some scores that is above the bar, which NaN is not.
template <typename T>
void above(const T* scores, int64_t count, T bar, uint16_t* bits) {
  for (int64_t first = 0; first < count; first += kBits)
    *bits++ = static_cast<uint16_t>(above_word(scores + first, within(count - first), bar));
}

}  // namespace
}  // namespace regrow
