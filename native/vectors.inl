// Vectors of any instruction set by the vector extensions of GCC and Clang, and the two things that
// need shuffles: horizontal sums and turning rows into columns.  Included by kernels.inl.
#pragma once

#include <cstddef>
#include <cstdint>

namespace regrow {
namespace {

using std::int32_t;
using std::int64_t;

#define REGROW_INLINE inline __attribute__((always_inline))
#define REGROW_LAMBDA __attribute__((always_inline))

// Holds a value in a register as it is: against loads that are done twice and, where it is a scalar,
// against gather instructions, which are slower than loads one by one.
#if defined(__x86_64__) || defined(__i386__)
#define REGROW_KEEP(v) asm("" : "+v"(v))
#elif defined(__aarch64__)
#define REGROW_KEEP(v) asm("" : "+w"(v))
#else
#define REGROW_KEEP(v)
#endif

template <typename T>
constexpr int kLanes = REGROW_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <typename T, int L>
struct VectorOf {
  typedef T type __attribute__((vector_size(L * sizeof(T)), may_alias));
  typedef T unaligned __attribute__((vector_size(L * sizeof(T)), aligned(sizeof(T)), may_alias));
};
template <typename T>
struct VectorOf<T, 1> {
  typedef T type;
  typedef T unaligned;
};
template <typename T, int L>
using Vector = typename VectorOf<T, L>::type;

template <typename V, typename T>
REGROW_INLINE V load(const T* p) {
  return *reinterpret_cast<const V*>(p);
}
template <typename T, int L>
REGROW_INLINE Vector<T, L> load_unaligned(const T* p) {
  return *reinterpret_cast<const typename VectorOf<T, L>::unaligned*>(p);
}
template <typename T, int L>
REGROW_INLINE void store_unaligned(T* p, Vector<T, L> v) {
  *reinterpret_cast<typename VectorOf<T, L>::unaligned*>(p) = v;
}

// ---- Shuffles.  Steps within 128 bits cost one instruction each, so the rest is kept to a minimum.

template <int... I>
struct Indices {};
template <int N, int... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <int... I>
struct Count<0, I...> {
  using type = Indices<I...>;
};

// Lanes of (a, b) that hold, in every group of lanes, the even or odd ones of a and then of b.
constexpr int deinterleaved(int lane, int lanes, int group, int odd) {
  const int place = lane % group, half = group / 2;
  return (place < half ? 0 : lanes) + lane - place + 2 * (place % half) + odd;
}
// Lanes of (a, b) that hold, in every group of G lanes, the lower or upper blocks of a and b in turn.
constexpr int interleaved(int lane, int lanes, int block, int group, int up) {
  const int place = lane % group / block, half = group / block / 2;
  const int from = place / 2 + up * half;
  return (place % 2 == 0 ? 0 : lanes) + lane / group * group + from * block + lane % block;
}
template <int Group, int Odd, typename V, int... I>
REGROW_INLINE V deinterleave(V a, V b, Indices<I...>) {
  return __builtin_shufflevector(a, b, deinterleaved(I, sizeof...(I), Group, Odd)...);
}
template <int Block, int Group, int Up, typename V, int... I>
REGROW_INLINE V interleave(V a, V b, Indices<I...>) {
  return __builtin_shufflevector(a, b, interleaved(I, sizeof...(I), Block, Group, Up)...);
}
template <typename V, int... I>
REGROW_INLINE auto join(V a, V b, Indices<I...>) {
  return __builtin_shufflevector(a, b, I...);
}
template <int From, typename V, int... I>
REGROW_INLINE auto half(V v, Indices<I...>) {
  return __builtin_shufflevector(v, v, (From + I)...);
}

// Lanes in 128 bits, or all of a shorter vector.
template <typename T, int L>
constexpr int kGroup = L * int(sizeof(T)) < 16 ? L : 16 / int(sizeof(T));

// Adds up each of N vectors, N no more than a group: lane i of the result is the sum of vector i.
// Every sum is formed in the same order, whatever its place.
template <typename T, int L, int N>
REGROW_INLINE void pair_up(Vector<T, L>* v) {
  if constexpr (N > 1) {
    using All = typename Count<L>::type;
    for (int i = 0; i < N / 2; ++i) {
      const Vector<T, L> a = v[2 * i], b = v[2 * i + 1];
      v[i] = deinterleave<kGroup<T, L>, 0>(a, b, All{}) + deinterleave<kGroup<T, L>, 1>(a, b, All{});
    }
    pair_up<T, L, N / 2>(v);
  }
}
template <typename T, int L>
REGROW_INLINE Vector<T, kGroup<T, L>> add_groups(Vector<T, L> v) {
  if constexpr (L == kGroup<T, L>) {
    return v;
  } else {
    using Half = typename Count<L / 2>::type;
    return add_groups<T, L / 2>(half<0>(v, Half{}) + half<L / 2>(v, Half{}));
  }
}
template <typename T, int L>
REGROW_INLINE Vector<T, kGroup<T, L>> sum_each(Vector<T, L>* v) {
  pair_up<T, L, kGroup<T, L>>(v);
  return add_groups<T, L>(v[0]);
}

// Adds up each of L vectors, in place: lane i of the first is the sum of vector i.  A step with H
// lanes adds the halves of groups of 2H lanes, those of `a` into the lower and of `b` into the upper.
// Every sum is formed in the same order, whatever its place.
template <int H, typename V, int... I>
REGROW_INLINE V fold(V a, V b, Indices<I...>) {
  constexpr int L = sizeof...(I);
  return __builtin_shufflevector(a, b, (I & H ? L + I : I)...) +
         __builtin_shufflevector(a, b, (I & H ? L + I - H : I + H)...);
}
template <typename T, int L, int H = L / 2>
REGROW_INLINE void sum_all(Vector<T, L>* v) {
  if constexpr (H > 0) {
    for (int i = 0; i < H; ++i) v[i] = fold<H>(v[i], v[i + H], typename Count<L>::type{});
    sum_all<T, L, H / 2>(v);
  }
}

// Rows r, r + G, r + 2G, ... of a matrix, G columns of each, side by side in one vector.
template <typename T, int L, int G>
REGROW_INLINE Vector<T, L> load_rows(const T* first, int64_t stride) {
  if constexpr (L == G) {
    return load_unaligned<T, L>(first);
  } else {
    return join(load_rows<T, L / 2, G>(first, stride),
                load_rows<T, L / 2, G>(first + L / 2 * stride, stride), typename Count<L>::type{});
  }
}

// Columns of a strip of L rows and G columns.
template <typename T, int L>
REGROW_INLINE void load_strip(const T* source, int64_t stride, Vector<T, L>* columns) {
  using V = Vector<T, L>;
  using All = typename Count<L>::type;
  constexpr int G = kGroup<T, L>;
  V rows[G];
  for (int i = 0; i < G; ++i) rows[i] = load_rows<T, L, G>(source + i * stride, stride);
  if constexpr (G == 2) {
    columns[0] = interleave<1, G, 0>(rows[0], rows[1], All{});
    columns[1] = interleave<1, G, 1>(rows[0], rows[1], All{});
  } else {
    const V low = interleave<1, G, 0>(rows[0], rows[1], All{});
    const V high = interleave<1, G, 1>(rows[0], rows[1], All{});
    const V low2 = interleave<1, G, 0>(rows[2], rows[3], All{});
    const V high2 = interleave<1, G, 1>(rows[2], rows[3], All{});
    columns[0] = interleave<2, G, 0>(low, low2, All{});
    columns[1] = interleave<2, G, 1>(low, low2, All{});
    columns[2] = interleave<2, G, 0>(high, high2, All{});
    columns[3] = interleave<2, G, 1>(high, high2, All{});
  }
}

// Turns L vectors of L lanes, the rows of a square, into its columns, in place.
template <int H, int Up, typename V, int... I>
REGROW_INLINE V exchange(V a, V b, Indices<I...>) {
  constexpr int L = sizeof...(I);
  return __builtin_shufflevector(a, b, (I & H ? L + I - (Up ? 0 : H) : I + (Up ? H : 0))...);
}
template <typename T, int L, int H = L / 2>
REGROW_INLINE void turn_square(Vector<T, L>* v) {
  if constexpr (H > 0) {
    using All = typename Count<L>::type;
    for (int i = 0; i < L; ++i) {
      if (i & H) continue;
      const Vector<T, L> a = v[i], b = v[i + H];
      v[i] = exchange<H, 0>(a, b, All{});
      v[i + H] = exchange<H, 1>(a, b, All{});
    }
    turn_square<T, L, H / 2>(v);
  }
}

// target[c * target_stride + r] = source[r * source_stride + c] for squares of whole cache lines, as
// far as these go; returns the first row that is left.  Every line of either side is met once: rows
// that are a power of two apart would drive each other out of the cache before the next time.
template <typename T, int L>
int64_t turn_squares(const T* source, int64_t source_stride, T* target, int64_t target_stride,
                     int64_t rows, int64_t columns) {
  int64_t r = 0;
  for (; r + L <= rows; r += L)
    for (int64_t c = 0; c < columns; c += L) {
      Vector<T, L> v[L];
      for (int i = 0; i < L; ++i)
        v[i] = load_unaligned<T, L>(source + (r + i) * source_stride + c);
      turn_square<T, L>(v);
      for (int i = 0; i < L; ++i)
        store_unaligned<T, L>(target + (c + i) * target_stride + r, v[i]);
    }
  return r;
}

// target[c * target_stride + r] = source[r * source_stride + c] for the rows [first, rows), L * Strips
// at a time as far as these go; returns the first row that is left.
//
// Rows that are a power of two apart fall on the same few places of the cache, so the side that is
// row-major in memory is walked along its cache lines: the source if `AlongSource`, else the target.
template <typename T, int L, int Strips, bool AlongSource>
REGROW_INLINE int64_t turn(const T* source, int64_t source_stride, T* target, int64_t target_stride,
                           int64_t first, int64_t rows, int64_t columns) {
  constexpr int G = kGroup<T, L>;
  const int64_t last = first + (rows - first) / (L * Strips) * (L * Strips);
  const int64_t whole = columns / G * G;
  const auto strips = [&](int64_t r, int64_t c) REGROW_LAMBDA {
    Vector<T, L> v[Strips][G];
    for (int s = 0; s < Strips; ++s)
      load_strip<T, L>(source + (r + s * L) * source_stride + c, source_stride, v[s]);
    for (int i = 0; i < G; ++i)
      for (int s = 0; s < Strips; ++s)
        store_unaligned<T, L>(target + (c + i) * target_stride + r + s * L, v[s][i]);
  };
  if constexpr (AlongSource) {
    for (int64_t r = first; r < last; r += L * Strips)
      for (int64_t c = 0; c < whole; c += G) strips(r, c);
  } else {
    for (int64_t c = 0; c < whole; c += G)
      for (int64_t r = first; r < last; r += L * Strips) strips(r, c);
  }
  for (int64_t r = first; r < last; ++r)
    for (int64_t c = whole; c < columns; ++c)
      target[c * target_stride + r] = source[r * source_stride + c];
  return last;
}

template <typename T, bool AlongSource>
void turn_all(const T* source, int64_t source_stride, T* target, int64_t target_stride,
              int64_t rows, int64_t columns) {
  constexpr int L = kLanes<T>, G = kGroup<T, L>;
  int64_t r = 0;
  if constexpr (L * sizeof(T) == 64)
    if (columns % L == 0)
      r = turn_squares<T, L>(source, source_stride, target, target_stride, rows, columns);
  if constexpr (!AlongSource && L * sizeof(T) < 64)
    r = turn<T, L, 2, AlongSource>(source, source_stride, target, target_stride, r, rows, columns);
  r = turn<T, L, 1, AlongSource>(source, source_stride, target, target_stride, r, rows, columns);
  if constexpr (G < L)
    r = turn<T, G, 1, AlongSource>(source, source_stride, target, target_stride, r, rows, columns);
  for (; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c)
      target[c * target_stride + r] = source[r * source_stride + c];
}

template <typename T>
REGROW_INLINE void copy(const T* source, T* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) target[i] = source[i];
}

// Turns `samples` rows of a row-major operand into `features` rows of `width`, padded with zeros.
template <typename T>
void turn_in(const T* source, int64_t stride, T* target, int32_t width, int64_t samples,
             int64_t features) {
  if (width == 1) return copy(source, target, features);
  turn_all<T, true>(source, stride, target, width, samples, features);
  if (samples == width) return;
  for (int64_t f = 0; f < features; ++f)
    for (int64_t s = samples; s < width; ++s) target[f * width + s] = T(0);
}

// The way back, without the padding.
template <typename T>
void turn_out(const T* source, int32_t width, T* target, int64_t stride, int64_t samples,
              int64_t features) {
  if (width == 1) return copy(source, target, features);
  turn_all<T, false>(source, width, target, stride, features, samples);
}

}  // namespace
}  // namespace regrow
