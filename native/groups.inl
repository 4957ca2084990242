// Products with n connections among every m columns, included by structured_*.cpp after blocks.inl.
//
// Rows reach about the same columns at the same place of their lists.  So some columns of the packed
// operand stay in the nearest cache while many rows use them, and the order of the columns is not
// needed: one walk along the rows of some columns gives both gradients.

#include "structured_units.h"

namespace regrow {
namespace {

constexpr int kGroupVectors = REGROW_VECTOR_REGISTERS >= 32 ? 4 : 3;
// Rows that are worked on together.
constexpr int kGroupRows = 4;

// Adds the groups [from, to) of M rows, [M, L * N].
template <typename T, int L, int N, int M>
REGROW_INLINE void add_groups_of(const GroupsUnit<T>& unit, int64_t row, int64_t from, int64_t to,
                                 T* out) {
  using V = Vector<T, L>;
  constexpr int64_t width = L * N;
  const int64_t n = unit.groups.n, m = unit.groups.m, length = unit.n_in / m * n;
  const T* values = unit.values + row * length + from * n;
  const std::uint8_t* places = unit.groups.places + row * length + from * n;
  const T* window = unit.packed + from * m * width;
  V sum[M][N];
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) sum[r][v] = load<V>(out + (r * N + v) * L);
  for (int64_t group = from; group < to; ++group) {
    for (int64_t k = 0; k < n; ++k) {
#pragma GCC unroll 8
      for (int r = 0; r < M; ++r) {
        const T* const p = window + static_cast<int64_t>(places[r * length + k]) * width;
        const V value = in_every_lane<T, L>(values[r * length + k]);
#pragma GCC unroll 8
        for (int v = 0; v < N; ++v) sum[r][v] += value * load<V>(p + v * L);
      }
    }
    values += n;
    places += n;
    window += m * width;
  }
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) *reinterpret_cast<V*>(out + (r * N + v) * L) = sum[r][v];
}

template <typename T, int L, int N>
void groups_tile(const GroupsUnit<T>& unit) {
  constexpr int64_t width = L * N;
  alignas(64) T panel[kPanel * width];
  const int64_t m = unit.groups.m, all = unit.n_in / m;
  const int64_t near = kNearBytes / (m * width * static_cast<int64_t>(sizeof(T)));
  const int64_t step = near > 0 ? near : 1;
  for (int64_t row = unit.first; row < unit.last; row += kPanel) {
    const int64_t rows = lesser(kPanel, unit.last - row);
    for (int64_t r = 0; r < rows; ++r) {
      const T start = unit.bias ? unit.bias[row + r] : T(0);
      for (int64_t s = 0; s < width; ++s) panel[r * width + s] = start;
    }
    for (int64_t from = 0; from < all; from += step) {
      const int64_t to = lesser(from + step, all);
      int64_t r = 0;
      for (; r + kGroupRows <= rows; r += kGroupRows)
        add_groups_of<T, L, N, kGroupRows>(unit, row + r, from, to, panel + r * width);
      for (; r < rows; ++r)
        add_groups_of<T, L, N, 1>(unit, row + r, from, to, panel + r * width);
    }
    turn_out(panel, static_cast<int32_t>(width), unit.y + row, unit.n_out, unit.samples, rows);
  }
}

// ---- Backward

// The connections [0, count) of one row within a window of columns.
template <typename T, int L, int N, bool NeedX, bool NeedValues>
REGROW_INLINE void group_row(const T* grad, const T* values, const std::uint8_t* places,
                             const int32_t* starts, int64_t count, const T* x, T* dx, T* dvalues,
                             bool add) {
  using V = Vector<T, L>;
  constexpr int G = kGroup<T, L>;
  constexpr int64_t width = L * N;
  V g[N];
#pragma GCC unroll 8
  for (int v = 0; v < N; ++v) g[v] = load<V>(grad + v * L);
  const auto connection = [&](int64_t k) REGROW_LAMBDA {
    const int64_t place = (starts[k] + static_cast<int64_t>(places[k])) * width;
    if constexpr (NeedX) {
      const V value = in_every_lane<T, L>(values[k]);
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) {
        V* const target = reinterpret_cast<V*>(dx + place + v * L);
        *target += value * g[v];
      }
    }
    V product = V{};
    if constexpr (NeedValues) {
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) product += g[v] * load<V>(x + place + v * L);
    }
    return product;
  };
  for (int64_t k = 0; k < count; k += G) {
    const int64_t part = lesser(G, count - k);
    V products[G];
    if (part == G) {
#pragma GCC unroll 8
      for (int i = 0; i < G; ++i) products[i] = connection(k + i);
    } else {
      for (int i = 0; i < G; ++i) products[i] = i < part ? connection(k + i) : V{};
    }
    if constexpr (NeedValues) {
      auto sums = sum_each<T, L>(products);
      T* const target = dvalues + k;
      if (part == G) {
        if (add) sums += load_unaligned<T, G>(target);
        store_unaligned<T, G>(target, sums);
      } else if constexpr (G > 1) {
        for (int i = 0; i < part; ++i) target[i] = (add ? target[i] : T(0)) + sums[i];
      }
    }
  }
}

template <typename T, int L, int N, bool NeedX, bool NeedValues>
void groups_backward_tile(const GroupsBackwardUnit<T>& unit) {
  constexpr int64_t width = L * N;
  const int64_t n = unit.groups.n, m = unit.groups.m, length = unit.n_in / m * n;
  // Enough connections that a row does not wait for what the one before it has stored.
  const int64_t columns = lesser(kGroupColumns, 16 * m > 64 * n ? 16 * m / n : 64);
  const int64_t step = columns > m ? columns / m : 1;
  int32_t starts[kGroupColumns];
  T* const x = unit.scratch;
  T* const dx = unit.scratch + kGroupColumns * width;
  for (int64_t k = 0; k < step * n; ++k) starts[k] = static_cast<int32_t>(k / n * m);
  for (int64_t group = unit.first; group < unit.last; group += step) {
    const int64_t groups = lesser(step, unit.last - group);
    const int64_t column = group * m, first = group * n;
    if constexpr (NeedValues)
      turn_in(unit.x + column, unit.n_in, x, static_cast<int32_t>(width), unit.samples, groups * m);
    if constexpr (NeedX)
      for (int64_t i = 0; i < groups * m * width; ++i) dx[i] = T(0);
    for (int64_t row = 0; row < unit.n_out; ++row) {
      const int64_t k = row * length + first;
      group_row<T, L, N, NeedX, NeedValues>(unit.packed + row * width, unit.values + k,
                                            unit.groups.places + k, starts, groups * n, x, dx,
                                            unit.dvalues + k, unit.add);
    }
    if constexpr (NeedX)
      turn_out(dx, static_cast<int32_t>(width), unit.dx + column, unit.n_in, unit.samples,
               groups * m);
  }
}

template <typename T, int L, int N>
void groups_backward_any(const GroupsBackwardUnit<T>& unit) {
  if (unit.dx && unit.dvalues) {
    groups_backward_tile<T, L, N, true, true>(unit);
  } else if (unit.dx) {
    groups_backward_tile<T, L, N, true, false>(unit);
  } else {
    groups_backward_tile<T, L, N, false, true>(unit);
  }
}

#define REGROW_FOR_GROUP_WIDTH(w, run, ...)                                              \
  do {                                                                                   \
    constexpr int L = kLanes<T>;                                                         \
    if (w == 1) return run<T, 1, 1>(__VA_ARGS__);                                        \
    if constexpr (L > 2) if (w == 2) return run<T, 2, 1>(__VA_ARGS__);                   \
    if constexpr (L > 4) if (w == 4) return run<T, 4, 1>(__VA_ARGS__);                   \
    if constexpr (L > 8) if (w == 8) return run<T, 8, 1>(__VA_ARGS__);                   \
    if (w == L) return run<T, L, 1>(__VA_ARGS__);                                        \
    if (w == 2 * L) return run<T, L, 2>(__VA_ARGS__);                                    \
    if (w == 3 * L) return run<T, L, 3>(__VA_ARGS__);                                    \
    if constexpr (kGroupVectors > 3) if (w == 4 * L) return run<T, L, 4>(__VA_ARGS__);   \
    __builtin_trap();                                                                    \
  } while (false)

template <typename T>
void groups(const GroupsUnit<T>& unit) {
  REGROW_FOR_GROUP_WIDTH(unit.width, groups_tile, unit);
}

template <typename T>
void groups_backward(const GroupsBackwardUnit<T>& unit) {
  REGROW_FOR_GROUP_WIDTH(unit.width, groups_backward_any, unit);
}

}  // namespace
}  // namespace regrow
