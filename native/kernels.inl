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

namespace regrow {
namespace {

// Vectors in the widest tile: those that a backward pass can hold in registers, twice.
constexpr int kVectors = REGROW_VECTOR_REGISTERS >= 32 ? 8 : 4;

// Rows that are finished before they are turned and written: whole cache lines of the output.
constexpr int kBlock = 16;

template <typename T>
void pack(const PackUnit<T>& unit) {
  // Blocks of features, so that the target is still in the cache when its rows are filled up.
  constexpr int64_t kStep = 4 * kBlock;
  for (int64_t f = unit.first; f < unit.last; f += kStep)
    turn_in(unit.source + f, unit.features, unit.packed + f * unit.width, unit.width, unit.samples,
            f + kStep < unit.last ? kStep : unit.last - f);
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
      T value = values[k + s];
      if constexpr (L == 1) REGROW_KEEP(value);
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
    turn_out(block, width, unit.y + row, unit.n_out, unit.samples, rows);
  }
}

// ---- Backward

// Adds the horizontal sums of a group of products to the first `count` of their targets.
template <typename T, int L>
REGROW_INLINE void add_sums(const Vector<T, L>* products, int count, T* target) {
  constexpr int G = kGroup<T, L>;
  if constexpr (L == 1) {
    if (count > 0) *target += products[0];
  } else {
    Vector<T, L> v[G];
    for (int i = 0; i < G; ++i) v[i] = products[i];
    const Vector<T, G> sums = sum_each<T, L>(v);
    if (count == G) {
      store_unaligned<T, G>(target, load_unaligned<T, G>(target) + sums);
    } else {
      for (int i = 0; i < count; ++i) target[i] += sums[i];
    }
  }
}

// Vectors of products that wait for their horizontal sums.  Among multiply-adds that accumulate,
// these would hold up the chains, so they are formed in runs of their own.
template <typename T, int L>
struct Products {
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

// As for the forward pass; with both gradients wanted there are no registers for more.
constexpr int backward_sets_for(int vectors, bool need_values) {
  return vectors >= 8 || (vectors >= 3 && need_values) ? 1 : 2;
}

// Connections [0, count) of a column, count a multiple of Sets.
template <typename T, int L, int N, int Sets, bool NeedValues>
REGROW_INLINE void backward_run(const T* packed, const int32_t* indices, const T* values,
                                int64_t count, const Vector<T, L>* x, Vector<T, L> (*dx)[N],
                                Vector<T, L>* products) {
  using V = Vector<T, L>;
  for (int64_t k = 0; k < count; k += Sets) {
    for (int s = 0; s < Sets; ++s) {
      const T* const p = packed + static_cast<int64_t>(indices[k + s]) * (L * N);
      V product = V{};
      for (int n = 0; n < N; ++n) {
        V g = load<V>(p + n * L);
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

template <typename T, int L, int N, bool NeedValues>
REGROW_INLINE void backward_column(const T* packed, const int32_t* indices, const T* values,
                                   int64_t count, const T* x, T* dx, Products<T, L>& products) {
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
    backward_run<T, L, N, S, NeedValues>(packed, indices + k, values + k, whole, xs, total,
                                                out);
    if (S > 1 && whole < run)
      backward_run<T, L, N, 1, NeedValues>(packed, indices + k + whole, values + k + whole,
                                                  1, xs, total, out + whole);
  }
  for (int n = 0; n < N; ++n) {
    for (int s = 1; s < S; ++s) total[0][n] += total[s][n];
    *reinterpret_cast<V*>(dx + n * L) = total[0][n];
  }
}

// Gradient of the values only: nothing accumulates, and the sums are best formed at once.
template <typename T, int L, int N>
REGROW_INLINE void values_column(const T* packed, const int32_t* indices, int64_t count, const T* x,
                                 T* dvalues) {
  using V = Vector<T, L>;
  constexpr int G = kGroup<T, L>;
  V xs[N];
  for (int n = 0; n < N; ++n) xs[n] = load<V>(x + n * L);
  const auto product = [&](int64_t k) REGROW_LAMBDA {
    const T* const p = packed + static_cast<int64_t>(indices[k]) * (L * N);
    V sum = V{};
    for (int n = 0; n < N; ++n) sum += load<V>(p + n * L) * xs[n];
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

template <typename T, int L, int N, bool NeedX, bool NeedValues>
void backward_tile(const BackwardUnit<T>& unit, int64_t tile, const T* packed, const T* values,
                   T* dvalues) {
  constexpr int width = L * N;
  const int64_t sample = tile * unit.tiles.width;
  const int64_t samples = tile + 1 < unit.tiles.count ? width : unit.tiles.batch - sample;
  const T* const x = unit.x + sample * unit.n_in;
  T* const dx = NeedX ? unit.dx + sample * unit.n_in : nullptr;
  const int64_t begin = unit.t_indptr[unit.first];
  alignas(64) T x_block[kBlock * width];
  alignas(64) T dx_block[kBlock * width];
  Products<T, L> products;
  products.count = 0;
  products.target = dvalues;
  for (int64_t column = unit.first; column < unit.last; column += kBlock) {
    const int64_t columns = column + kBlock < unit.last ? kBlock : unit.last - column;
    if constexpr (NeedValues) turn_in(x + column, unit.n_in, x_block, width, samples, columns);
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t start = unit.t_indptr[column + c];
      const int64_t count = unit.t_indptr[column + c + 1] - start;
      if constexpr (NeedX) {
        backward_column<T, L, N, NeedValues>(packed, unit.t_indices + start,
                                             values + (start - begin), count, x_block + c * width,
                                             dx_block + c * width, products);
      } else {
        values_column<T, L, N>(packed, unit.t_indices + start, count, x_block + c * width,
                               dvalues + (start - begin));
      }
    }
    if constexpr (NeedX) turn_out(dx_block, width, dx + column, unit.n_in, samples, columns);
  }
  if constexpr (NeedX && NeedValues) products.finish();
}

template <typename T, int L, int N>
void backward_any(const BackwardUnit<T>& unit, int64_t tile, const T* packed, const T* values,
                  T* dvalues) {
  if (unit.dx && unit.dvalues) {
    backward_tile<T, L, N, true, true>(unit, tile, packed, values, dvalues);
  } else if (unit.dx) {
    backward_tile<T, L, N, true, false>(unit, tile, packed, values, dvalues);
  } else {
    backward_tile<T, L, N, false, true>(unit, tile, packed, values, dvalues);
  }
}

// ---- Sampled products

template <typename T, int L, int N>
void pairs_tile(const PairsUnit<T>& unit) {
  using V = Vector<T, L>;
  constexpr int64_t width = L * N;
  Products<T, L> products;
  products.count = 0;
  products.target = unit.products + unit.first;
  for (int64_t k = unit.first; k < unit.last; ++k) {
    const T* const g = unit.packed_grad + unit.rows[k] * width;
    const T* const x = unit.packed_x + unit.columns[k] * width;
    V product = V{};
    for (int n = 0; n < N; ++n) product += load<V>(g + n * L) * load<V>(x + n * L);
    *products.room(1) = product;
  }
  products.finish();
}

// ---- Choice of the tile width at run time

// Calls `run<T, lanes, vectors>` for a width of some whole vectors or a part of one.  The driver
// chooses from these; any other would leave the results unwritten.
#define REGROW_FOR_WIDTH(width, run, ...)                                          \
  do {                                                                             \
    constexpr int L = kLanes<T>;                                                   \
    const int32_t w = (width);                                                     \
    if (w == 1) return run<T, 1, 1>(__VA_ARGS__);                                  \
    if constexpr (L > 2) if (w == 2) return run<T, 2, 1>(__VA_ARGS__);             \
    if constexpr (L > 4) if (w == 4) return run<T, 4, 1>(__VA_ARGS__);             \
    if constexpr (L > 8) if (w == 8) return run<T, 8, 1>(__VA_ARGS__);             \
    if (w == L) return run<T, L, 1>(__VA_ARGS__);                                  \
    if (w == 2 * L) return run<T, L, 2>(__VA_ARGS__);                              \
    if (w == 3 * L) return run<T, L, 3>(__VA_ARGS__);                              \
    if (w == 4 * L) return run<T, L, 4>(__VA_ARGS__);                              \
    if constexpr (kVectors >= 8) if (w == 8 * L) return run<T, L, 8>(__VA_ARGS__); \
    __builtin_trap();                                                              \
  } while (false)

template <typename T>
void forward(const ForwardUnit<T>& unit) {
  REGROW_FOR_WIDTH(unit.width, forward_tile, unit);
}

template <typename T>
void backward_one(const BackwardUnit<T>& unit, int64_t tile, const T* values, T* dvalues) {
  const bool full = tile + 1 < unit.tiles.count;
  const int32_t width = full ? unit.tiles.width : unit.tiles.last;
  const int64_t sample = tile * unit.tiles.width;
  const T* packed = unit.packed + sample * unit.n_out;
  if (unit.grad) {
    packed = unit.packed;
    pack<T>({unit.grad + sample * unit.n_out, unit.packed, unit.n_out, 0, unit.n_out, width,
             full ? width : static_cast<int32_t>(unit.tiles.batch - sample)});
  }
  REGROW_FOR_WIDTH(width, backward_any, unit, tile, packed, values, dvalues);
}

template <typename T>
void backward(const BackwardUnit<T>& unit) {
  const int64_t begin = unit.t_indptr[unit.first];
  const int64_t count = unit.t_indptr[unit.last] - begin;
  const int32_t* const slots = unit.t_perm + begin;
  T* const values = unit.scratch;
  T* const dvalues = unit.scratch + count;
  if (unit.dx)
    for (int64_t k = 0; k < count; ++k) {
      T value = unit.values[slots[k]];
      REGROW_KEEP(value);
      values[k] = value;
    }
  if (unit.dvalues)
    for (int64_t k = 0; k < count; ++k) dvalues[k] = T(0);
  for (int64_t tile = 0; tile < unit.tiles.count; ++tile)
    backward_one(unit, tile, values, dvalues);
  if (!unit.dvalues) return;
  if (unit.accumulate) {
    for (int64_t k = 0; k < count; ++k) unit.dvalues[slots[k]] += dvalues[k];
  } else {
    for (int64_t k = 0; k < count; ++k) {
      T value = dvalues[k];
      REGROW_KEEP(value);
      unit.dvalues[slots[k]] = value;
    }
  }
}

template <typename T>
void pairs(const PairsUnit<T>& unit) {
  REGROW_FOR_WIDTH(unit.width, pairs_tile, unit);
}

template <typename T>
constexpr Kernels<T> kernels() {
  return {kLanes<T>, kVectors, &pack<T>, &forward<T>, &backward<T>, &pairs<T>};
}

}  // namespace

extern const Isa REGROW_ISA = {REGROW_ISA_NAME, kernels<float>(), kernels<double>()};

}  // namespace regrow
