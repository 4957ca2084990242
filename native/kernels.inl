// The kernels, written once with vector extensions and compiled once per instruction set.
//
// Included by isa_*.cpp, which define REGROW_VECTOR_BYTES, REGROW_VECTOR_REGISTERS, REGROW_ISA and
// REGROW_ISA_NAME.  Everything is in an anonymous namespace and no function of the standard library
// is used, so nothing compiled for one instruction set can be linked in for another.
//
// One idea carries all of them: with the samples of a tile side by side, a stored connection is a
// scalar times a short contiguous row, accumulated in registers.

#include <cstddef>
#include <cstdint>

#include "products.h"

namespace regrow {
namespace {

using std::int32_t;
using std::int64_t;

#define REGROW_INLINE inline __attribute__((always_inline))

template <typename T>
constexpr int kLanes = REGROW_VECTOR_BYTES / static_cast<int>(sizeof(T));

// Rows that are finished before they are turned and written: whole cache lines of the output.
constexpr int kBlock = 16;

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

// ---- Shuffles: exchange of the off-diagonal blocks of two vectors, the step of a transposition.

template <int... I>
struct Indices {};
template <int N, int... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <int... I>
struct Count<0, I...> {
  using type = Indices<I...>;
};

template <int Half, typename V, int... I>
REGROW_INLINE V lower(V a, V b, Indices<I...>) {
  return __builtin_shufflevector(a, b, ((I & Half) ? int(sizeof...(I)) + I - Half : I)...);
}
template <int Half, typename V, int... I>
REGROW_INLINE V upper(V a, V b, Indices<I...>) {
  return __builtin_shufflevector(a, b, ((I & Half) ? int(sizeof...(I)) + I : I + Half)...);
}

template <int Half, int L, typename V>
REGROW_INLINE void transpose_step(V* v) {
  if constexpr (Half > 0) {
    for (int i = 0; i < L; ++i) {
      if (i & Half) continue;
      const V a = v[i], b = v[i + Half];
      v[i] = lower<Half>(a, b, typename Count<L>::type{});
      v[i + Half] = upper<Half>(a, b, typename Count<L>::type{});
    }
    transpose_step<Half / 2, L>(v);
  }
}

// Sum of each of L vectors, lane i from vector i; the order of additions is the same for all.
template <int Half, int L, typename V>
REGROW_INLINE V sum_each(V* v) {
  if constexpr (Half > 0) {
    for (int i = 0; i < Half; ++i) {
      const V a = v[i], b = v[i + Half];
      v[i] = lower<Half>(a, b, typename Count<L>::type{}) +
             upper<Half>(a, b, typename Count<L>::type{});
    }
    return sum_each<Half / 2, L>(v);
  } else {
    return v[0];
  }
}

// target[c * target_stride + r] = source[r * source_stride + c]
template <typename T>
void turn(const T* source, int64_t source_stride, T* target, int64_t target_stride, int64_t rows,
          int64_t columns) {
  constexpr int L = kLanes<T>;
  int64_t r = 0;
  for (; r + L <= rows; r += L) {
    const T* from = source + r * source_stride;
    int64_t c = 0;
    for (; c + L <= columns; c += L) {
      Vector<T, L> v[L];
      for (int i = 0; i < L; ++i) v[i] = load_unaligned<T, L>(from + i * source_stride + c);
      transpose_step<L / 2, L>(v);
      for (int i = 0; i < L; ++i) store_unaligned<T, L>(target + (c + i) * target_stride + r, v[i]);
    }
    for (; c < columns; ++c)
      for (int i = 0; i < L; ++i) target[c * target_stride + r + i] = from[i * source_stride + c];
  }
  for (; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c)
      target[c * target_stride + r] = source[r * source_stride + c];
}

// As `turn`, and zero in the columns of the target that no row of the source fills.
template <typename T>
void turn_padded(const T* source, int64_t source_stride, T* target, int32_t width, int64_t rows,
                 int64_t columns) {
  turn(source, source_stride, target, width, rows, columns);
  if (rows == width) return;
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = rows; r < width; ++r) target[c * width + r] = T(0);
}

template <typename T>
void pack(const PackUnit<T>& unit) {
  // Blocks of features, so that a cache line of the source is used up before it is evicted.
  for (int64_t f = unit.first; f < unit.last; f += 4 * kBlock) {
    const int64_t n = f + 4 * kBlock < unit.last ? 4 * kBlock : unit.last - f;
    turn_padded(unit.source + f, unit.features, unit.packed + f * unit.width, unit.width,
                unit.samples, n);
  }
}

// ---- Forward

// Several sets of accumulators hide the latency of a multiply-add where the tile is narrow.
constexpr int sets_for(int vectors) { return vectors >= 8 ? 1 : vectors >= 3 ? 2 : 4; }

template <typename T, int L, int N>
REGROW_INLINE void forward_row(const ForwardUnit<T>& unit, int64_t row, T* out) {
  using V = Vector<T, L>;
  constexpr int S = sets_for(N);
  constexpr int64_t width = L * N;
  const T* const packed = unit.packed;
  const T* const values = unit.values;
  const int32_t* const indices = unit.indices;
  V sum[S][N];
  const T bias = unit.bias ? unit.bias[row] : T(0);
  for (int n = 0; n < N; ++n) sum[0][n] = V{} + bias;
  for (int s = 1; s < S; ++s)
    for (int n = 0; n < N; ++n) sum[s][n] = V{};

  int64_t k = unit.indptr[row];
  const int64_t end = unit.indptr[row + 1];
  for (; k + S <= end; k += S) {
    for (int s = 0; s < S; ++s) {
      const T* const p = packed + indices[k + s] * width;
      const T value = values[k + s];
      for (int n = 0; n < N; ++n) sum[s][n] += value * load<V>(p + n * L);
    }
  }
  for (; k < end; ++k) {
    const T* const p = packed + indices[k] * width;
    const T value = values[k];
    for (int n = 0; n < N; ++n) sum[0][n] += value * load<V>(p + n * L);
  }
  for (int n = 0; n < N; ++n) {
    V total = sum[0][n];
    for (int s = 1; s < S; ++s) total += sum[s][n];
    *reinterpret_cast<V*>(out + n * L) = total;
  }
}

template <typename T, int L, int N>
void forward_tile(const ForwardUnit<T>& unit) {
  constexpr int width = L * N;
  alignas(64) T block[kBlock * width];
  for (int64_t row = unit.first; row < unit.last; row += kBlock) {
    const int64_t rows = row + kBlock < unit.last ? kBlock : unit.last - row;
    for (int64_t r = 0; r < rows; ++r) forward_row<T, L, N>(unit, row + r, block + r * width);
    turn(block, width, unit.y + row, unit.n_out, rows, unit.samples);
  }
}

// ---- Backward

// Vectors of products that wait for their horizontal sums, which are cheapest L at a time.
template <typename T, int L>
struct Sums {
  static constexpr int kRoom = 64;
  Vector<T, L> waiting[kRoom + L];
  int count;
  T* target;

  REGROW_INLINE void flush() {
    int i = 0;
    for (; i + L <= count; i += L) add(waiting + i, L);
    for (int r = 0; i + r < count; ++r) waiting[r] = waiting[i + r];
    count -= i;
  }
  REGROW_INLINE void finish() {
    flush();
    if constexpr (L > 1)
      if (count > 0) add(waiting, count);
    count = 0;
  }
  REGROW_INLINE void add(const Vector<T, L>* from, int n) {
    if constexpr (L == 1) {
      *target += from[0];
    } else {
      Vector<T, L> v[L];
      for (int i = 0; i < L; ++i) v[i] = i < n ? from[i] : Vector<T, L>{};
      const Vector<T, L> sums = sum_each<L / 2, L>(v);
      if (n == L) {
        store_unaligned<T, L>(target, load_unaligned<T, L>(target) + sums);
      } else {
        for (int i = 0; i < n; ++i) target[i] += sums[i];
      }
    }
    target += n;
  }
};

template <typename T, int L, int N, bool NeedX, bool NeedValues>
REGROW_INLINE void backward_column(const T* packed, const int32_t* indices, const T* values,
                                   int64_t count, const T* x, T* dx, Sums<T, L>& sums) {
  using V = Vector<T, L>;
  constexpr int64_t width = L * N;
  V xs[N], total[N];
  for (int n = 0; n < N; ++n) {
    total[n] = V{};
    if constexpr (NeedValues) xs[n] = load<V>(x + n * L);
  }
  int64_t k = 0;
  while (k < count) {
    int64_t stop = count;
    if constexpr (NeedValues) {
      if (sums.count >= sums.kRoom) sums.flush();
      const int64_t room = sums.kRoom - sums.count;
      if (count - k > room) stop = k + room;
    }
    V* const waiting = sums.waiting + sums.count - k;
    if constexpr (NeedValues) sums.count += static_cast<int>(stop - k);
    for (; k < stop; ++k) {
      const T* const p = packed + indices[k] * width;
      V product = V{};
      for (int n = 0; n < N; ++n) {
        const V g = load<V>(p + n * L);
        if constexpr (NeedX) total[n] += values[k] * g;
        if constexpr (NeedValues) product += g * xs[n];
      }
      if constexpr (NeedValues) waiting[k] = product;
    }
  }
  if constexpr (NeedX)
    for (int n = 0; n < N; ++n) *reinterpret_cast<V*>(dx + n * L) = total[n];
}

template <typename T, int L, int N, bool NeedX, bool NeedValues>
void backward_tile(const BackwardUnit<T>& unit, int64_t tile, const T* values, T* dvalues) {
  constexpr int width = L * N;
  const int64_t sample = tile * unit.tiles.width;
  const int64_t samples = tile + 1 < unit.tiles.count ? width : unit.tiles.batch - sample;
  const T* const packed = unit.packed + sample * unit.n_out;
  const T* const x = unit.x + sample * unit.n_in;
  const int64_t begin = unit.t_indptr[unit.first];
  alignas(64) T x_block[kBlock * width];
  alignas(64) T dx_block[kBlock * width];
  Sums<T, L> sums;
  sums.count = 0;
  sums.target = dvalues;
  for (int64_t column = unit.first; column < unit.last; column += kBlock) {
    const int64_t columns = column + kBlock < unit.last ? kBlock : unit.last - column;
    if constexpr (NeedValues) turn_padded(x + column, unit.n_in, x_block, width, samples, columns);
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t start = unit.t_indptr[column + c];
      backward_column<T, L, N, NeedX, NeedValues>(
          packed, unit.t_indices + start, values + (start - begin),
          unit.t_indptr[column + c + 1] - start, x_block + c * width, dx_block + c * width, sums);
    }
    if constexpr (NeedX)
      turn(dx_block, width, unit.dx + sample * unit.n_in + column, unit.n_in, columns, samples);
  }
  if constexpr (NeedValues) sums.finish();
}

template <typename T, int L, int N>
void backward_any(const BackwardUnit<T>& unit, int64_t tile, const T* values, T* dvalues) {
  if (unit.dx && unit.dvalues) {
    backward_tile<T, L, N, true, true>(unit, tile, values, dvalues);
  } else if (unit.dx) {
    backward_tile<T, L, N, true, false>(unit, tile, values, dvalues);
  } else {
    backward_tile<T, L, N, false, true>(unit, tile, values, dvalues);
  }
}

// ---- Sampled products

template <typename T, int L, int N>
void pairs_tile(const PairsUnit<T>& unit) {
  using V = Vector<T, L>;
  constexpr int64_t width = L * N;
  Sums<T, L> sums;
  sums.count = 0;
  sums.target = unit.products + unit.first;
  for (int64_t k = unit.first; k < unit.last; ++k) {
    const T* const g = unit.packed_grad + unit.rows[k] * width;
    const T* const x = unit.packed_x + unit.columns[k] * width;
    V product = V{};
    for (int n = 0; n < N; ++n) product += load<V>(g + n * L) * load<V>(x + n * L);
    sums.waiting[sums.count++] = product;
    if (sums.count == sums.kRoom) sums.flush();
  }
  sums.finish();
}

// ---- Choice of the tile width at run time

// Calls `Run<T, lanes, vectors>` for a width of up to `Max` whole vectors or a part of one.
#define REGROW_FOR_WIDTH(width, Max, run, ...)                                    \
  do {                                                                            \
    constexpr int L = kLanes<T>;                                                  \
    const int32_t w = (width);                                                    \
    if (w == 1) return run<T, 1, 1>(__VA_ARGS__);                                 \
    if constexpr (L > 2) if (w == 2) return run<T, 2, 1>(__VA_ARGS__);            \
    if constexpr (L > 4) if (w == 4) return run<T, 4, 1>(__VA_ARGS__);            \
    if constexpr (L > 8) if (w == 8) return run<T, 8, 1>(__VA_ARGS__);            \
    if (w == L) return run<T, L, 1>(__VA_ARGS__);                                 \
    if (w == 2 * L) return run<T, L, 2>(__VA_ARGS__);                             \
    if (w == 3 * L) return run<T, L, 3>(__VA_ARGS__);                             \
    if (w == 4 * L) return run<T, L, 4>(__VA_ARGS__);                             \
    if constexpr (Max >= 6) if (w == 6 * L) return run<T, L, 6>(__VA_ARGS__);     \
    if constexpr (Max >= 8) if (w == 8 * L) return run<T, L, 8>(__VA_ARGS__);     \
  } while (false)

constexpr int kForwardWidth = 8;
constexpr int kBackwardWidth = REGROW_VECTOR_REGISTERS >= 32 ? 8 : 4;

template <typename T>
void forward(const ForwardUnit<T>& unit) {
  REGROW_FOR_WIDTH(unit.width, kForwardWidth, forward_tile, unit);
}

template <typename T>
void backward_one(const BackwardUnit<T>& unit, int64_t tile, const T* values, T* dvalues) {
  const int32_t width = tile + 1 < unit.tiles.count ? unit.tiles.width : unit.tiles.last;
  REGROW_FOR_WIDTH(width, kBackwardWidth, backward_any, unit, tile, values, dvalues);
}

template <typename T>
void backward(const BackwardUnit<T>& unit) {
  const int64_t begin = unit.t_indptr[unit.first];
  const int64_t count = unit.t_indptr[unit.last] - begin;
  const int32_t* const slots = unit.t_perm + begin;
  T* const values = unit.scratch;
  T* const dvalues = unit.scratch + count;
  if (unit.dx)
    for (int64_t k = 0; k < count; ++k) values[k] = unit.values[slots[k]];
  if (unit.dvalues)
    for (int64_t k = 0; k < count; ++k) dvalues[k] = T(0);
  for (int64_t tile = 0; tile < unit.tiles.count; ++tile)
    backward_one(unit, tile, values, dvalues);
  if (!unit.dvalues) return;
  if (unit.accumulate) {
    for (int64_t k = 0; k < count; ++k) unit.dvalues[slots[k]] += dvalues[k];
  } else {
    for (int64_t k = 0; k < count; ++k) unit.dvalues[slots[k]] = dvalues[k];
  }
}

template <typename T>
void pairs(const PairsUnit<T>& unit) {
  REGROW_FOR_WIDTH(unit.width, kBackwardWidth, pairs_tile, unit);
}

template <typename T>
constexpr Kernels<T> kernels() {
  return {kLanes<T>,   kForwardWidth, kBackwardWidth, &pack<T>,
          &forward<T>, &backward<T>,  &pairs<T>};
}

}  // namespace

extern const Isa REGROW_ISA = {REGROW_ISA_NAME, kernels<float>(), kernels<double>()};

}  // namespace regrow
