// The kernels, written once with vector extensions and compiled once per instruction set.
//
// Included by isa_*.cpp, which define REGROW_VECTOR_BYTES, REGROW_VECTOR_REGISTERS, REGROW_ISA and
// REGROW_ISA_NAME.  Everything is in an anonymous namespace and no function of the standard library
// is used, so nothing compiled for one instruction set can be linked in for another.
//
// One idea carries all of them: with the samples of a tile side by side, a stored connection is a
// scalar times a short contiguous row, accumulated in registers.

#include <cstdint>

#include "products.h"

#include "vectors.inl"
#include "bits.inl"

namespace regrow {
namespace {

// Vectors in the widest tile: those that a backward pass can hold in registers, twice.
constexpr int kVectors = REGROW_VECTOR_REGISTERS >= 32 ? 8 : 4;

// Samples of the widest tile.
template <typename T>
constexpr int64_t kWidest = kVectors * kLanes<T>;

// Rows that are finished before they are turned and written: whole cache lines of the output.
constexpr int kBlock = 16;

}  // namespace
}  // namespace regrow

#include "bfloat16.inl"
#include "operands.inl"

namespace regrow {
namespace {

// ---- Forward

// Several sets of accumulators hide the latency of a multiply-add where the tile is narrow.
constexpr int sets_for(int vectors) { return vectors >= 8 ? 1 : vectors >= 3 ? 2 : 4; }

#if REGROW_VECTOR_BYTES == 64

// One or two samples: a vector is made of what lies at as many places as it has room for.
template <int L>
REGROW_INLINE __m512 gathered(const float* packed, const int32_t* indices, const float* values,
                              uint32_t which, __m512 sum) {
  if constexpr (L == 1) {
    const __mmask16 mask = static_cast<__mmask16>(which);
    const __m512 x = _mm512_mask_i32gather_ps(
        _mm512_setzero_ps(), mask, _mm512_maskz_loadu_epi32(mask, indices), packed, 4);
    return _mm512_fmadd_ps(x, _mm512_maskz_loadu_ps(mask, values), sum);
  } else {
    const __mmask8 mask = static_cast<__mmask8>(which);
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const __m512 x = _mm512_castpd_ps(_mm512_mask_i32gather_pd(
        _mm512_setzero_pd(), mask, _mm256_maskz_loadu_epi32(mask, indices), packed, 8));
    const __m512 value = _mm512_castps256_ps512(_mm256_maskz_loadu_ps(mask, values));
    return _mm512_fmadd_ps(x, _mm512_maskz_permutexvar_ps(0xFFFF, twice, value), sum);
  }
}

template <int L>
REGROW_INLINE Vector<float, L> gathered_row(const float* packed, const int32_t* indices,
                                            const float* values, int64_t k, int64_t end) {
  constexpr int C = 16 / L;
  __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (; k + 2 * C <= end; k += 2 * C)
    for (int s = 0; s < 2; ++s)
      sum[s] = gathered<L>(packed, indices + k + s * C, values + k + s * C, 0xFFFFu, sum[s]);
  for (; k < end; k += C)
    sum[0] = gathered<L>(packed, indices + k, values + k, within(C < end - k ? C : end - k), sum[0]);
  const auto both = reinterpret_cast<Vector<float, 16>>(sum[0] + sum[1]);
  const auto pairs = add_groups<float, 16>(both);
  if constexpr (L == 1) {
    return pairs[0] + pairs[1] + pairs[2] + pairs[3];
  } else {
    return Vector<float, 2>{pairs[0] + pairs[2], pairs[1] + pairs[3]};
  }
}

#endif

template <int L, int N, typename T, typename A>
REGROW_INLINE void forward_row(const ForwardUnit<T, A>& unit, int64_t row, T* out) {
  using V = Vector<T, L>;
  constexpr int S = sets_for(N);
  constexpr int64_t width = L * N;
  const A* const packed = unit.packed;
  const T* const values = unit.values;
  const int32_t* const indices = unit.indices;
  V sum[S][N];
  const T bias = unit.bias ? unit.bias[row] : T(0);
  for (int n = 0; n < N; ++n) sum[0][n] = V{} + bias;
  for (int s = 1; s < S; ++s)
    for (int n = 0; n < N; ++n) sum[s][n] = V{};

  int64_t k = unit.indptr[row];
  const int64_t end = unit.indptr[row + 1], ahead = soon(end, unit.indptr[unit.n_out]);
  prefetch_stream(indices, k, end);
  prefetch_stream(values, k, end);
#if REGROW_VECTOR_BYTES == 64
  if constexpr (L <= 2 && N == 1 && sizeof(T) == 4) {
    sum[0][0] += gathered_row<L>(packed, indices, values, k, end);
    k = end;
  }
#endif
  for (; k + S <= end; k += S) {
    for (int s = 0; s < S; ++s) {
      prefetch_row<width>(packed, indices[k + s + ahead]);
      const A* const p = packed + indices[k + s] * width;
      T value = values[k + s];
      if constexpr (L == 1) REGROW_KEEP(value);
      for (int n = 0; n < N; ++n) sum[s][n] += value * vector_at<T, L>(p, n);
    }
  }
  for (; k < end; ++k) {
    const A* const p = packed + indices[k] * width;
    const T value = values[k];
    for (int n = 0; n < N; ++n) sum[0][n] += value * vector_at<T, L>(p, n);
  }
  for (int n = 0; n < N; ++n) {
    V total = sum[0][n];
    for (int s = 1; s < S; ++s) total += sum[s][n];
    if (unit.rectified) total = total < V{} ? V{} : total;
    *reinterpret_cast<V*>(out + n * L) = total;
  }
}

template <int L, int N, typename T, typename A>
void forward_tile(const ForwardUnit<T, A>& unit) {
  constexpr int width = L * N;
  alignas(64) T block[kBlock * width];
  for (int64_t row = unit.first; row < unit.last; row += kBlock) {
    const int64_t rows = row + kBlock < unit.last ? kBlock : unit.last - row;
    prefetch(unit.y, unit.y_pitch, unit.n_out, unit.samples, row, rows, unit.last);
    const auto y = rows_of<T>(unit.y, unit.y_pitch, row, unit.samples, block, width);
    for (int64_t r = 0; r < rows; ++r) forward_row<L, N>(unit, row + r, y.data + r * y.step);
    bring_out(block, width, unit.y, unit.y_pitch, unit.n_out, row, unit.samples, rows);
  }
}

// ---- Backward

// First place in [begin, end) of rising indices with an index of at least `border`.
REGROW_INLINE int64_t passes(const int32_t* indices, int64_t begin, int64_t end, int64_t border) {
  while (begin < end) {
    const int64_t middle = begin + (end - begin) / 2;
    const bool below = indices[middle] < border;
    begin = below ? middle + 1 : begin;
    end = below ? end : middle;
  }
  return begin;
}

// The horizontal sums of a group of products.
template <typename T, int L>
REGROW_INLINE Vector<T, kGroup<T, L>> sums_of(const Vector<T, L>* products) {
  constexpr int G = kGroup<T, L>;
  if constexpr (L == 1) {
    return products[0];
  } else {
    Vector<T, L> v[G];
    for (int i = 0; i < G; ++i) v[i] = products[i];
    return sum_each<T, L>(v);
  }
}

// Adds these sums to the first `count` of their targets, which are next to each other.
template <typename T, int L>
REGROW_INLINE void add_sums(const Vector<T, L>* products, int count, T* target) {
  constexpr int G = kGroup<T, L>;
  const Vector<T, G> sums = sums_of<T, L>(products);
  if constexpr (L == 1) {
    if (count > 0) *target += sums;
  } else if (count == G) {
    store_unaligned<T, G>(target, load_unaligned<T, G>(target) + sums);
  } else {
    for (int i = 0; i < count; ++i) target[i] += sums[i];
  }
}

// Vectors of products that wait for their horizontal sums, and where these go.  Among multiply-adds
// that accumulate, these would hold up the chains, so they are formed in runs of their own.
template <typename T, int L, bool Accumulate>
struct Products {
  static constexpr int kRun = 32;
  Vector<T, L> waiting[2 * kRun + L];
  int32_t slots[2 * kRun + L];
  int count;
  T* target;

  // Room for `more` products, at most kRun: the place of the first.
  REGROW_INLINE int room(int more) {
    if (count + more > 2 * kRun) flush();
    count += more;
    return count - more;
  }
  REGROW_INLINE void put(int first, int many) {
    alignas(64) T sums[L];
    Vector<T, L> v[L];
    for (int i = 0; i < L; ++i) v[i] = waiting[first + i];
    sum_all<T, L>(v);
    const int32_t* const to = slots + first;
    *reinterpret_cast<Vector<T, L>*>(sums) = v[0];
    for (int i = 0; i < many; ++i) {
      if constexpr (Accumulate) sums[i] += target[to[i]];
      target[to[i]] = sums[i];
    }
  }
  void flush() {
    const int whole = count / L * L;
    for (int i = 0; i < whole; i += L) put(i, L);
    count -= whole;
    for (int i = 0; i < count; ++i) {
      waiting[i] = waiting[whole + i];
      slots[i] = slots[whole + i];
    }
  }
  void finish() {
    flush();
    if (count == 0) return;
    for (int i = count; i < L; ++i) waiting[i] = Vector<T, L>{};
    put(0, count);
  }
};

// As for the forward pass; with both gradients wanted there are no registers for more.
constexpr int backward_sets_for(int vectors, bool need_values) {
  return vectors >= 8 || (vectors >= 3 && need_values) ? 1 : 2;
}

// Values and their gradients in row order lie all over the memory: where that is too large for the
// cache, they are asked for this many connections before their turn.
constexpr int64_t kAhead = 32;

// Writes what several sets of accumulators make together.
template <typename T, int L, int N, int Sets>
REGROW_INLINE void put_totals(Vector<T, L> (*total)[N], T* target) {
  for (int n = 0; n < N; ++n) {
    for (int s = 1; s < Sets; ++s) total[0][n] += total[s][n];
    *reinterpret_cast<Vector<T, L>*>(target + n * L) = total[0][n];
  }
}

// A run of the connections of a column, `count` a multiple of Sets; the weight has `all`.
template <int L, int N, int Sets, bool NeedX, bool NeedValues, typename T, typename A>
REGROW_INLINE void backward_run(const BackwardUnit<T, A>& unit, int64_t first, int64_t count,
                                int64_t all, const Vector<T, L>* x, Vector<T, L> (*dx)[N],
                                Vector<T, L>* products, int32_t* slots) {
  using V = Vector<T, L>;
  const int32_t* const indices = unit.t_indices + first;
  const int32_t* const perm = unit.t_perm + first;
  const int64_t last = all - first - 1, ahead = soon(first + count, all);
  for (int64_t k = 0; k < count; k += Sets) {
    for (int s = 0; s < Sets; ++s) {
      const A* const p = unit.packed + static_cast<int64_t>(indices[k + s]) * (L * N);
      prefetch_row<L * N>(unit.packed, indices[k + s + ahead]);
      const int32_t slot = perm[k + s];
      if (unit.far) {
        const int32_t later = perm[k + s + kAhead < last ? k + s + kAhead : last];
        if constexpr (NeedX) __builtin_prefetch(unit.values + later, 0, 3);
        if constexpr (NeedValues) __builtin_prefetch(unit.dvalues + later, 1, 3);
      }
      T value = T(0);
      if constexpr (NeedX) {
        value = unit.values[slot];
        if constexpr (L == 1) REGROW_KEEP(value);
      }
      if constexpr (NeedValues) slots[k + s] = slot;
      V product = V{};
      for (int n = 0; n < N; ++n) {
        V g = vector_at<T, L>(p, n);
        // Two products need it: one load, not two that are folded into the multiply-adds.  (Clang
        // knows no register for half a vector of 128 bits.)
        if constexpr (NeedX && NeedValues && L * sizeof(T) != 8) REGROW_KEEP(g);
        if constexpr (NeedX) dx[s][n] += value * g;
        if constexpr (NeedValues) product += g * x[n];
      }
      if constexpr (NeedValues) products[k + s] = product;
    }
  }
}

// Connections [begin, end) of a column.
template <int L, int N, bool NeedX, bool NeedValues, typename T, typename A>
REGROW_INLINE void backward_column(const BackwardUnit<T, A>& unit, int64_t begin, int64_t end,
                                   int64_t all, const T* x, T* dx,
                                   Products<T, L, false>& products) {
  using V = Vector<T, L>;
  constexpr int S = NeedX ? backward_sets_for(N, NeedValues) : 1;
  V xs[N], total[S][N];
  for (int n = 0; n < N; ++n) {
    for (int s = 0; s < S; ++s) total[s][n] = V{};
    if constexpr (NeedValues) xs[n] = load<V>(x + n * L);
  }
  // Runs start at fixed places of the column, so that its sums do not depend on what came before.
  for (int64_t k = begin; k < end; k += products.kRun) {
    const int64_t run = end - k < products.kRun ? end - k : products.kRun;
    const int64_t whole = run / S * S;
    const int at = NeedValues ? products.room(static_cast<int>(run)) : 0;
    V* const out = products.waiting + at;
    int32_t* const slots = products.slots + at;
    backward_run<L, N, S, NeedX, NeedValues>(unit, k, whole, all, xs, total, out, slots);
    if (S > 1 && whole < run)
      backward_run<L, N, 1, NeedX, NeedValues>(unit, k + whole, 1, all, xs, total, out + whole,
                                               slots + whole);
  }
  if constexpr (NeedX) put_totals<T, L, N, S>(total, dx);
}

// Asks for what is written when these columns are done, and for what is read at the next ones.
template <bool NeedX, bool NeedValues, typename T, typename A>
REGROW_INLINE void prefetch_block(const BackwardUnit<T, A>& unit, int64_t column, int64_t columns) {
  if constexpr (NeedX)
    prefetch(unit.dx, unit.x_pitch, unit.n_in, unit.samples, column, columns, unit.last);
  if constexpr (NeedValues)
    prefetch(unit.x, unit.x_pitch, unit.n_in, unit.samples, column + kBlock, kBlock, unit.last);
}

template <int L, int N, bool NeedX, bool NeedValues, typename T, typename A>
void backward_tile(const BackwardUnit<T, A>& given) {
  const BackwardUnit<T, A> unit = given;  // which no store can reach, so that it stays in registers
  constexpr int width = L * N;
  const int64_t all = unit.t_indptr[unit.n_in];
  alignas(64) T x_block[kBlock * width];
  alignas(64) T dx_block[kBlock * width];
  Products<T, L, false> products;
  products.count = 0;
  products.target = unit.dvalues;
  for (int64_t column = unit.first; column < unit.last; column += kBlock) {
    const int64_t columns = column + kBlock < unit.last ? kBlock : unit.last - column;
    prefetch_block<NeedX, NeedValues>(unit, column, columns);
    if constexpr (NeedValues)
      bring_in(unit.x, unit.x_pitch, unit.n_in, column, x_block, width, unit.samples, columns);
    const auto x = rows_of<const T>(unit.x, unit.x_pitch, column, unit.samples, x_block, width);
    const auto dx = rows_of<T>(unit.dx, unit.x_pitch, column, unit.samples, dx_block, width);
    for (int64_t c = 0; c < columns; ++c)
      backward_column<L, N, NeedX, NeedValues>(
          unit, unit.t_indptr[column + c], unit.t_indptr[column + c + 1], all,
          x.data + c * x.step, dx.data + c * dx.step, products);
    if constexpr (NeedX)
      bring_out(dx_block, width, unit.dx, unit.x_pitch, unit.n_in, column, unit.samples, columns);
  }
  if constexpr (NeedValues) products.finish();
}

// ---- The same where values and their gradients have been brought into column order
//
// The targets are next to each other, and sums are best formed in small groups.

// Vectors of products that wait for their horizontal sums.  Among multiply-adds that accumulate,
// these would hold up the chains, so they are formed in runs of their own.
template <typename T, int L>
struct OrderedProducts {
  static constexpr int kGroupSize = kGroup<T, L>;
  static constexpr int kRun = 64;
  Vector<T, L> waiting[2 * kRun + kGroupSize];
  int count;
  T* target;

  // Room for `more` products, at most kRun.
  REGROW_INLINE Vector<T, L>* room(int more) {
    if (count + more > 2 * kRun) flush();
    Vector<T, L>* const first = waiting + count;
    count += more;
    return first;
  }
  REGROW_INLINE void flush() {
    const int groups = count / kGroupSize;
    for (int i = 0; i < groups; ++i) {
      add_sums<T, L>(waiting + i * kGroupSize, kGroupSize, target);
      target += kGroupSize;
    }
    count -= groups * kGroupSize;
    for (int i = 0; i < count; ++i) waiting[i] = waiting[groups * kGroupSize + i];
  }
  REGROW_INLINE void finish() {
    flush();
    for (int i = count; i < kGroupSize; ++i) waiting[i] = Vector<T, L>{};
    add_sums<T, L>(waiting, count, target);
  }
};

// Connections [0, count) of a column, count a multiple of Sets.
template <int L, int N, int Sets, bool NeedValues, typename T, typename A>
REGROW_INLINE void ordered_run(const A* packed, const int32_t* indices, const T* values,
                                int64_t count, int64_t ahead, const Vector<T, L>* x,
                                Vector<T, L> (*dx)[N], Vector<T, L>* products) {
  using V = Vector<T, L>;
  for (int64_t k = 0; k < count; k += Sets) {
    for (int s = 0; s < Sets; ++s) {
      const A* const p = packed + static_cast<int64_t>(indices[k + s]) * (L * N);
      prefetch_row<L * N>(packed, indices[k + s + ahead]);
      V product = V{};
      for (int n = 0; n < N; ++n) {
        V g = vector_at<T, L>(p, n);
        // Two products need it: one load, not two that are folded into the multiply-adds.  (Clang
        // knows no register for half a vector of 128 bits.)
        if constexpr (NeedValues && L * sizeof(T) != 8) REGROW_KEEP(g);
        dx[s][n] += values[k + s] * g;
        if constexpr (NeedValues) product += g * x[n];
      }
      if constexpr (NeedValues) products[k + s] = product;
    }
  }
}

template <int L, int N, bool NeedValues, typename T, typename A>
REGROW_INLINE void ordered_column(const A* packed, const int32_t* indices, const T* values,
                                   int64_t count, int64_t ahead, const T* x, T* dx,
                                   OrderedProducts<T, L>& products) {
  using V = Vector<T, L>;
  constexpr int S = backward_sets_for(N, NeedValues);
  V xs[N], total[S][N];
  for (int n = 0; n < N; ++n) {
    for (int s = 0; s < S; ++s) total[s][n] = V{};
    if constexpr (NeedValues) xs[n] = load<V>(x + n * L);
  }
  // Runs start at fixed places of the column, so that its sums do not depend on what came before.
  for (int64_t k = 0; k < count; k += products.kRun) {
    const int64_t run = count - k < products.kRun ? count - k : products.kRun;
    const int64_t whole = run / S * S;
    V* const out = NeedValues ? products.room(static_cast<int>(run)) : nullptr;
    ordered_run<L, N, S, NeedValues>(packed, indices + k, values + k, whole, ahead, xs, total, out);
    if (S > 1 && whole < run)
      ordered_run<L, N, 1, NeedValues>(packed, indices + k + whole, values + k + whole, 1, ahead,
                                       xs, total, out + whole);
  }
  put_totals<T, L, N, S>(total, dx);
}

// Gradient of the values only: nothing accumulates, and the sums are best formed at once.
template <int L, int N, typename T, typename A>
REGROW_INLINE void ordered_values_column(const A* packed, const int32_t* indices, int64_t count,
                                         const T* x, T* dvalues) {
  using V = Vector<T, L>;
  constexpr int G = kGroup<T, L>;
  V xs[N];
  for (int n = 0; n < N; ++n) xs[n] = load<V>(x + n * L);
  const auto product = [&](int64_t k) REGROW_LAMBDA {
    const A* const p = packed + static_cast<int64_t>(indices[k]) * (L * N);
    V sum = V{};
    for (int n = 0; n < N; ++n) sum += vector_at<T, L>(p, n) * xs[n];
    return sum;
  };
  int64_t k = 0;
  V products[G];
  for (; k + G <= count; k += G) {
    for (int i = 0; i < G; ++i) products[i] = product(k + i);
    add_sums<T, L>(products, G, dvalues + k);
  }
  if (k == count) return;
  for (int i = 0; i < G; ++i) products[i] = k + i < count ? product(k + i) : V{};
  add_sums<T, L>(products, static_cast<int>(count - k), dvalues + k);
}

template <int L, int N, bool NeedX, bool NeedValues, typename T, typename A>
void ordered_tile(const BackwardUnit<T, A>& unit) {
  constexpr int width = L * N;
  const int64_t all = unit.t_indptr[unit.n_in];
  alignas(64) T x_block[kBlock * width];
  alignas(64) T dx_block[kBlock * width];
  OrderedProducts<T, L> products;
  products.count = 0;
  products.target = unit.dvalues + unit.t_indptr[unit.first];
  for (int64_t column = unit.first; column < unit.last; column += kBlock) {
    const int64_t columns = column + kBlock < unit.last ? kBlock : unit.last - column;
    prefetch_block<NeedX, NeedValues>(unit, column, columns);
    if constexpr (NeedValues)
      bring_in(unit.x, unit.x_pitch, unit.n_in, column, x_block, width, unit.samples, columns);
    const auto x = rows_of<const T>(unit.x, unit.x_pitch, column, unit.samples, x_block, width);
    const auto dx = rows_of<T>(unit.dx, unit.x_pitch, column, unit.samples, dx_block, width);
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t start = unit.t_indptr[column + c];
      const int64_t count = unit.t_indptr[column + c + 1] - start;
      if constexpr (NeedX) {
        ordered_column<L, N, NeedValues>(unit.packed, unit.t_indices + start, unit.values + start,
                                         count, soon(start + count, all), x.data + c * x.step,
                                         dx.data + c * dx.step, products);
      } else {
        ordered_values_column<L, N>(unit.packed, unit.t_indices + start, count,
                                    x.data + c * x.step, unit.dvalues + start);
      }
    }
    if constexpr (NeedX)
      bring_out(dx_block, width, unit.dx, unit.x_pitch, unit.n_in, column, unit.samples, columns);
  }
  if constexpr (NeedX && NeedValues) products.finish();
}

template <int L, int N, bool NeedX, bool NeedValues, typename T, typename A>
void backward_as(const BackwardUnit<T, A>& unit) {
  if (unit.t_perm) return backward_tile<L, N, NeedX, NeedValues>(unit);
  ordered_tile<L, N, NeedX, NeedValues>(unit);
}

template <int L, int N, typename T, typename A>
void backward_any(const BackwardUnit<T, A>& unit) {
  if (unit.dx && unit.dvalues) {
    backward_as<L, N, true, true>(unit);
  } else if (unit.dx) {
    backward_as<L, N, true, false>(unit);
  } else {
    backward_as<L, N, false, true>(unit);
  }
}

// ---- Backward in row order
//
// Where a tile is one vector wide at most, values and their gradients, which lie all over the memory
// in column order, cost more than the samples.  In row order they are read and written front to back,
// and what is hit at random are sums and activations of a column: one vector each, side by side.

template <int L, bool NeedX, bool NeedValues>
constexpr int64_t kColumn = NeedX && NeedValues ? 2 * L : L;

template <typename T, int L, bool NeedX, bool NeedValues>
REGROW_INLINE Vector<T, L> rows_step(const RowsUnit<T>& unit, int64_t k, Vector<T, L> g) {
  using V = Vector<T, L>;
  const int64_t place = unit.indices[k] * kColumn<L, NeedX, NeedValues>;
  if constexpr (NeedX) {
    T* const dx = unit.dx + place;
    *reinterpret_cast<V*>(dx) = load<V>(dx) + unit.values[k] * g;
  }
  if constexpr (NeedValues) return load<V>(unit.x + place) * g;
  return V{};
}

template <typename T, int L, bool NeedX, bool NeedValues>
void rows_tile(const RowsUnit<T>& given) {
  using V = Vector<T, L>;
  const RowsUnit<T> unit = given;  // which no store can reach, so that it stays in registers
  constexpr int G = kGroup<T, L>;
  const bool whole = unit.first == 0 && unit.last == unit.n_in;
  const int64_t all = unit.indptr[unit.n_out] - 1;
  for (int64_t row = unit.first_row; row < unit.last_row; ++row) {
    int64_t k = unit.indptr[row], end = unit.indptr[row + 1];
    if (!whole) {
      k = passes(unit.indices, k, end, unit.first);
      end = passes(unit.indices, k, end, unit.last);
    }
    prefetch_stream(unit.indices, k, end);
    if constexpr (NeedX) prefetch_stream(unit.values, k, end);
    if constexpr (NeedValues) prefetch_stream<1>(unit.dvalues, k, end);
    const V g = load<V>(unit.grad + row * L);
    V products[G];
    for (; k + G <= end; k += G) {
      for (int i = 0; i < G; ++i) {
        const int64_t later = k + i + kAhead < all ? k + i + kAhead : all;
        const int64_t place = unit.indices[later] * kColumn<L, NeedX, NeedValues>;
        if constexpr (NeedX) __builtin_prefetch(unit.dx + place, 1, 3);
        if constexpr (NeedValues && (!NeedX || 2 * L * sizeof(T) > 64))
          __builtin_prefetch(unit.x + place, 0, 3);
      }
      for (int i = 0; i < G; ++i) products[i] = rows_step<T, L, NeedX, NeedValues>(unit, k + i, g);
      if constexpr (NeedValues) store_unaligned<T, G>(unit.dvalues + k, sums_of<T, L>(products));
    }
    if constexpr (G > 1) {
      if (k == end) continue;
      for (int i = 0; i < G; ++i)
        products[i] = k + i < end ? rows_step<T, L, NeedX, NeedValues>(unit, k + i, g) : V{};
      if constexpr (NeedValues) {
        const Vector<T, G> sums = sums_of<T, L>(products);
        for (int i = 0; k + i < end; ++i) unit.dvalues[k + i] = sums[i];
      }
    }
  }
}

template <typename T, int L>
void rows_any(const RowsUnit<T>& unit) {
  if (unit.dx && unit.dvalues) {
    rows_tile<T, L, true, true>(unit);
  } else if (unit.dx) {
    rows_tile<T, L, true, false>(unit);
  } else {
    rows_tile<T, L, false, true>(unit);
  }
}

template <typename T>
void unpack(const UnpackUnit<T>& unit) {
  constexpr int64_t kStep = 4 * kBlock;
  for (int64_t f = unit.first; f < unit.last; f += kStep)
    turn_out(unit.packed + f * unit.width, unit.width, unit.target + f, unit.features, unit.samples,
             f + kStep < unit.last ? kStep : unit.last - f);
}

// ---- Sums over samples

template <int L, int N, typename T, typename A>
void sum_tile(const SumUnit<T, A>& unit) {
  using V = Vector<T, L>;
  constexpr int G = kGroup<T, L>;
  for (int64_t f = unit.first; f < unit.last; f += G) {
    V totals[G];
    const int count = f + G < unit.last ? G : static_cast<int>(unit.last - f);
    for (int i = 0; i < G; ++i) {
      totals[i] = V{};
      const A* const row = unit.packed + (f + i) * (L * N);
      for (int n = 0; n < N && i < count; ++n) totals[i] += vector_at<T, L>(row, n);
    }
    add_sums<T, L>(totals, count, unit.sums + f);
  }
}

// ---- Sampled products

template <int L, int N, typename T>
void pairs_tile(const PairsUnit<T>& unit) {
  using V = Vector<T, L>;
  constexpr int64_t width = L * N;
  Products<T, L, true> products;
  products.count = 0;
  products.target = unit.products + unit.first;
  for (int64_t k = unit.first; k < unit.last; ++k) {
    const T* const g = unit.packed_grad + unit.rows[k] * width;
    const T* const x = unit.packed_x + unit.columns[k] * width;
    V product = V{};
    for (int n = 0; n < N; ++n) product += load<V>(g + n * L) * load<V>(x + n * L);
    const int at = products.room(1);
    products.waiting[at] = product;
    products.slots[at] = static_cast<int32_t>(k - unit.first);
  }
  products.finish();
}

// ---- Choice of the tile width at run time

// Calls `run<lanes, vectors>` for a width of some whole vectors or a part of one, or where two
// samples share a word, of some pairs of vectors.  The driver chooses from these; any other would
// leave the results unwritten.
#define REGROW_FOR_WIDTH(A, width, run, ...)                                           \
  do {                                                                                 \
    constexpr int L = kLanes<T>, share = sizeof(T) / sizeof(A);                        \
    const int32_t w = (width);                                                         \
    if constexpr (share == 1) {                                                        \
      if (w == 1) return run<1, 1>(__VA_ARGS__);                                       \
      if constexpr (L > 2) if (w == 2) return run<2, 1>(__VA_ARGS__);                  \
      if constexpr (L > 4) if (w == 4) return run<4, 1>(__VA_ARGS__);                  \
      if constexpr (L > 8) if (w == 8) return run<8, 1>(__VA_ARGS__);                  \
      if (w == L) return run<L, 1>(__VA_ARGS__);                                       \
      if (w == 3 * L) return run<L, 3>(__VA_ARGS__);                                   \
    }                                                                                  \
    if (w == 2 * L) return run<L, 2>(__VA_ARGS__);                                     \
    if (w == 4 * L) return run<L, 4>(__VA_ARGS__);                                     \
    if constexpr (share > 1 && kVectors >= 8) if (w == 6 * L) return run<L, 6>(__VA_ARGS__); \
    if constexpr (kVectors >= 8) if (w == 8 * L) return run<L, 8>(__VA_ARGS__);        \
    __builtin_trap();                                                                  \
  } while (false)

template <typename T, typename A>
void forward(const ForwardUnit<T, A>& unit) {
  REGROW_FOR_WIDTH(A, unit.width, forward_tile, unit);
}

template <typename T, typename A>
void backward(const BackwardUnit<T, A>& unit) {
  REGROW_FOR_WIDTH(A, unit.width, backward_any, unit);
}

template <typename T>
void backward_rows(const RowsUnit<T>& unit) {
  constexpr int L = kLanes<T>;
  if (unit.width == 1) return rows_any<T, 1>(unit);
  if constexpr (L > 2) if (unit.width == 2) return rows_any<T, 2>(unit);
  if constexpr (L > 4) if (unit.width == 4) return rows_any<T, 4>(unit);
  if constexpr (L > 8) if (unit.width == 8) return rows_any<T, 8>(unit);
  if (unit.width == L) return rows_any<T, L>(unit);
  __builtin_trap();
}

template <typename T, typename A>
void sum(const SumUnit<T, A>& unit) {
  REGROW_FOR_WIDTH(A, unit.width, sum_tile, unit);
}

template <typename T>
void pairs(const PairsUnit<T>& unit) {
  REGROW_FOR_WIDTH(T, unit.width, pairs_tile, unit);
}

template <typename T, typename A = T>
constexpr ProductKernels<T, A> product_kernels() {
  constexpr int share = sizeof(T) / sizeof(A);
  return {share == 1 ? 1 : share * kLanes<T>, share * kLanes<T>, kVectors / share, &pack<T, A>,
          &sum<T, A>, &forward<T, A>, &backward<T, A>};
}

template <typename T>
constexpr Kernels<T> kernels() {
  return {product_kernels<T>(), &backward_rows<T>, &unpack<T>, &pairs<T>, &expand<T>,
          &compress<T>, &above<T>};
}

}  // namespace

extern const Isa REGROW_ISA = {REGROW_ISA_NAME, kernels<float>(), kernels<double>(),
                               product_kernels<float, BFloat16>()};

}  // namespace regrow
