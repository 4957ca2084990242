// Products with blocks of connections, included by structured_*.cpp after vectors.inl.
//
// A block is a small dense matrix, so some of its rows are worked on together: a row of the packed
// operand is loaded once and used for each of them, where the products of single connections load
// it for every one.

#include "structured_units.h"

namespace regrow {
namespace {

// Rows and vectors that fill the registers with accumulators.
constexpr int kBlockRows = REGROW_VECTOR_REGISTERS >= 32 ? 8 : 4;
constexpr int kBlockVectors = 3;
// Features that are finished before they are turned and written.
constexpr int kPanel = 64;
constexpr int kLine = 16;
// Bytes of the packed operand that are used for all rows of a block before the next ones.
constexpr int64_t kNearBytes = 24 << 10;
REGROW_INLINE int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

// A scalar in every lane, loaded once, and not again as an operand of every multiply-add.
template <typename T, int L>
REGROW_INLINE Vector<T, L> in_every_lane(T scalar) {
  if constexpr (L == 1) {
    return scalar;
  } else {
    Vector<T, L> v = scalar - Vector<T, L>{};
    if constexpr (L * sizeof(T) != 8) REGROW_KEEP(v);
    return v;
  }
}

// sum[m][n] += a[m * along + k * across] * operand[k][n] for k in [0, depth).
template <typename T, int L, int N, int M>
REGROW_INLINE void add_block(const T* a, int64_t along, int64_t across, int64_t depth,
                             const T* operand, Vector<T, L> (*sum)[N]) {
  using V = Vector<T, L>;
  for (int64_t k = 0; k < depth; ++k) {
    V v[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) v[n] = load<V>(operand + n * L);
    const T* entry = a;
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const V scalar = in_every_lane<T, L>(*entry);
      entry += along;
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sum[m][n] += scalar * v[n];
    }
    a += across;
    operand += L * N;
  }
}

// Adds the blocks [from, to) of one block row (or column) to M of its features, [M, L * N].
template <typename T, int L, int N, int M>
REGROW_INLINE void add_blocks(const BlockUnit<T>& unit, int64_t group, int64_t inner, int64_t from,
                              int64_t to, T* out) {
  using V = Vector<T, L>;
  const Blocks& blocks = unit.blocks;
  const int64_t size = blocks.rows * blocks.columns;
  V sum[M][N];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) sum[m][n] = load<V>(out + (m * N + n) * L);
  for (int64_t b = from; b < to; ++b) {
    const bool turned = unit.turned.indptr;
    const int64_t other = turned ? unit.turned.indices[b] : blocks.indices[b];
    const int64_t row = turned ? other : group;
    const int64_t slot = turned ? unit.turned.slots[b] : b;
    const int64_t start = blocks.indptr[row];
    const int64_t length = (blocks.indptr[row + 1] - start) * blocks.columns;
    const T* const corner = unit.values + start * size + (slot - start) * blocks.columns;
    const int64_t depth = turned ? blocks.rows : blocks.columns;
    const T* const operand = unit.packed + other * depth * (L * N);
    if (turned) {
      add_block<T, L, N, M>(corner + inner, 1, length, depth, operand, sum);
    } else {
      add_block<T, L, N, M>(corner + inner * length, length, 1, depth, operand, sum);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) *reinterpret_cast<V*>(out + (m * N + n) * L) = sum[m][n];
}

// Features [inner, inner + count) of one block row (or column), [count, L * N].
template <typename T, int L, int N>
void block_features(const BlockUnit<T>& unit, int64_t group, int64_t inner, int64_t count, T* out) {
  constexpr int64_t width = L * N;
  const bool turned = unit.turned.indptr;
  const int64_t* const starts = turned ? unit.turned.indptr : unit.blocks.indptr;
  const int64_t height = turned ? unit.blocks.columns : unit.blocks.rows;
  const int64_t depth = turned ? unit.blocks.rows : unit.blocks.columns;
  for (int64_t f = 0; f < count; ++f) {
    const T start = unit.bias ? unit.bias[group * height + inner + f] : T(0);
    for (int64_t s = 0; s < width; ++s) out[f * width + s] = start;
  }
  const int64_t near = kNearBytes / (depth * width * static_cast<int64_t>(sizeof(T)));
  const int64_t step = near > 0 ? near : 1;
  for (int64_t from = starts[group]; from < starts[group + 1]; from += step) {
    const int64_t to = lesser(from + step, starts[group + 1]);
    int64_t f = 0;
    for (; f + kBlockRows <= count; f += kBlockRows)
      add_blocks<T, L, N, kBlockRows>(unit, group, inner + f, from, to, out + f * width);
    if constexpr (kBlockRows > 4)
      if (f + 4 <= count) {
        add_blocks<T, L, N, 4>(unit, group, inner + f, from, to, out + f * width);
        f += 4;
      }
    if (f + 2 <= count) {
      add_blocks<T, L, N, 2>(unit, group, inner + f, from, to, out + f * width);
      f += 2;
    }
    if (f < count) add_blocks<T, L, N, 1>(unit, group, inner + f, from, to, out + f * width);
  }
}

template <typename T, int L, int N>
void block_tile(const BlockUnit<T>& unit) {
  constexpr int64_t width = L * N;
  alignas(64) T panel[kPanel * width];
  const int64_t height = unit.turned.indptr ? unit.blocks.columns : unit.blocks.rows;
  if (height >= kLine) {
    for (int64_t group = unit.first; group < unit.last; ++group)
      for (int64_t inner = 0; inner < height; inner += kPanel) {
        const int64_t count = lesser(kPanel, height - inner);
        block_features<T, L, N>(unit, group, inner, count, panel);
        turn_out(panel, static_cast<int32_t>(width), unit.out + group * height + inner, unit.stride,
                 unit.samples, count);
      }
    return;
  }
  // Low blocks share a panel, so that whole cache lines are written.
  const int64_t step = kPanel / height;
  for (int64_t group = unit.first; group < unit.last; group += step) {
    const int64_t groups = lesser(step, unit.last - group);
    for (int64_t g = 0; g < groups; ++g)
      block_features<T, L, N>(unit, group + g, 0, height, panel + g * height * width);
    turn_out(panel, static_cast<int32_t>(width), unit.out + group * height, unit.stride,
             unit.samples, groups * height);
  }
}

template <typename T>
void block(const BlockUnit<T>& unit) {
  constexpr int L = kLanes<T>;
  const int32_t w = unit.width;
  if (w == 1) return block_tile<T, 1, 1>(unit);
  if constexpr (L > 2) if (w == 2) return block_tile<T, 2, 1>(unit);
  if constexpr (L > 4) if (w == 4) return block_tile<T, 4, 1>(unit);
  if constexpr (L > 8) if (w == 8) return block_tile<T, 8, 1>(unit);
  if (w == L) return block_tile<T, L, 1>(unit);
  if (w == 2 * L) return block_tile<T, L, 2>(unit);
  if (w == 3 * L) return block_tile<T, L, 3>(unit);
  __builtin_trap();
}

// ---- Gradient of the values: samples are what is summed over, so no operand is turned

// Rows of a block that are worked on with one copy of their gradients.
constexpr int64_t kHeight = 32;

// target[s * target_stride + i] = source[s * source_stride + i] for i in [0, count).
template <typename T, int L>
REGROW_INLINE void copy_columns(const T* source, int64_t source_stride, T* target,
                                int64_t target_stride, int64_t samples, int64_t count) {
  for (int64_t s = 0; s < samples; ++s) {
    const T* const from = source + s * source_stride;
    T* const to = target + s * target_stride;
    int64_t i = 0;
    for (; i + L <= count; i += L) store_unaligned<T, L>(to + i, load_unaligned<T, L>(from + i));
    if constexpr (L > 4)
      for (; i + 4 <= count; i += 4) store_unaligned<T, 4>(to + i, load_unaligned<T, 4>(from + i));
    for (; i < count; ++i) to[i] = from[i];
  }
}

template <typename T>
void panels(const PanelUnit<T>& unit) {
  constexpr int L = kLanes<T>;
  for (int64_t panel = unit.first; panel < unit.last; ++panel) {
    T* const target = unit.panels + panel * unit.samples * L;
    const int64_t count = lesser(L, unit.features - panel * L);
    if (count == L) {
      copy_columns<T, L>(unit.source + panel * L, unit.features, target, L, unit.samples, L);
      continue;
    }
    for (int64_t i = 0; i < unit.samples * L; ++i) target[i] = T(0);
    copy_columns<T, L>(unit.source + panel * L, unit.features, target, L, unit.samples, count);
  }
}

// A vector of P pieces of memory.
template <typename T, int L, int P>
REGROW_INLINE Vector<T, L> load_pieces(const T* const* pieces, int64_t offset) {
  if constexpr (P == 1) {
    return load_unaligned<T, L>(pieces[0] + offset);
  } else {
    return join(load_pieces<T, L / 2, P / 2>(pieces, offset),
                load_pieces<T, L / 2, P / 2>(pieces + P / 2, offset), typename Count<L>::type{});
  }
}

// target[m * stride + i] (+)= sum over s of grad[s * height + m] * x_i[s * step], i < count.
template <typename T, int L, int N, int P, int M>
REGROW_INLINE void add_values(const T* grad, int64_t height, const T* const* pieces, int64_t step,
                              int64_t samples, int64_t count, T* target, int64_t stride, bool add) {
  using V = Vector<T, L>;
  V sum[M][N];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) sum[m][n] = V{};
  for (int64_t s = 0, offset = 0; s < samples; ++s, offset += step) {
    V v[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) v[n] = load_pieces<T, L, P>(pieces + n * P, offset);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const V scalar = in_every_lane<T, L>(grad[m]);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sum[m][n] += scalar * v[n];
    }
    grad += height;
  }
  alignas(64) T out[L];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    T* const row = target + m * stride;
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      if ((n + 1) * L <= count) {
        if (add) sum[m][n] += load_unaligned<T, L>(row + n * L);
        store_unaligned<T, L>(row + n * L, sum[m][n]);
        continue;
      }
      *reinterpret_cast<V*>(out) = sum[m][n];
      for (int64_t i = n * L; i < count; ++i) row[i] = (add ? row[i] : T(0)) + out[i - n * L];
    }
  }
}

template <typename T, int L, int N, int P>
REGROW_INLINE void add_value_rows(const T* grad, int64_t rows, const T* const* pieces, int64_t step,
                                  int64_t samples, int64_t count, T* target, int64_t stride,
                                  bool add) {
  int64_t r = 0;
  for (; r + kBlockRows <= rows; r += kBlockRows)
    add_values<T, L, N, P, kBlockRows>(grad + r, rows, pieces, step, samples, count,
                                       target + r * stride, stride, add);
  if constexpr (kBlockRows > 4)
    if (r + 4 <= rows) {
      add_values<T, L, N, P, 4>(grad + r, rows, pieces, step, samples, count, target + r * stride,
                                stride, add);
      r += 4;
    }
  if (r + 2 <= rows) {
    add_values<T, L, N, P, 2>(grad + r, rows, pieces, step, samples, count, target + r * stride,
                              stride, add);
    r += 2;
  }
  if (r < rows)
    add_values<T, L, N, P, 1>(grad + r, rows, pieces, step, samples, count, target + r * stride,
                              stride, add);
}

// `count` columns of a block row, the first being `column` of those it has, in N vectors that lie in
// panels, each in P pieces of different blocks; or gathered in a strip of their own where P is 0.
template <typename T, int N, int P>
void value_columns(const BlockValuesUnit<T>& unit, int64_t row, int64_t column, int64_t count,
                   int64_t inner, int64_t rows, const T* grad) {
  constexpr int L = kLanes<T>;
  const Blocks& blocks = unit.blocks;
  const int64_t first = blocks.indptr[row];
  const int64_t length = (blocks.indptr[row + 1] - first) * blocks.columns;
  T* const target = unit.dvalues + first * blocks.rows * blocks.columns + inner * length + column;
  const auto source = [&](int64_t place) REGROW_LAMBDA {
    return blocks.indices[first + place / blocks.columns] * blocks.columns + place % blocks.columns;
  };
  if constexpr (P > 0) {
    const T* pieces[N * P];
    for (int i = 0; i < N * P; ++i) {
      const int64_t place = column + i * (L / P);
      const int64_t from = source(place < column + count ? place : column);
      pieces[i] = unit.panels + from / L * L * unit.samples + from % L;
    }
    add_value_rows<T, L, N, P>(grad, rows, pieces, L, unit.samples, count, target, length, unit.add);
  } else {
    constexpr int64_t width = L * N;
    alignas(64) T strip[kValueSamples * width];
    if (count < width)
      for (int64_t i = 0; i < unit.samples * width; ++i) strip[i] = T(0);
    for (int64_t done = 0; done < count;) {
      const int64_t part =
          lesser(count - done, blocks.columns - (column + done) % blocks.columns);
      copy_columns<T, L>(unit.x + source(column + done), unit.n_in, strip + done, width,
                         unit.samples, part);
      done += part;
    }
    const T* pieces[N];
    for (int n = 0; n < N; ++n) pieces[n] = strip + n * L;
    add_value_rows<T, L, N, 1>(grad, rows, pieces, width, unit.samples, count, target, length,
                               unit.add);
  }
}

template <typename T, int P>
void value_rows(const BlockValuesUnit<T>& unit) {
  constexpr int L = kLanes<T>;
  // Every piece has an address in a register.
  constexpr int N = P > 2 ? 2 : kBlockVectors;
  alignas(64) T grad[kValueSamples * kHeight];
  const Blocks& blocks = unit.blocks;
  for (int64_t row = unit.first; row < unit.last; ++row) {
    const int64_t length = (blocks.indptr[row + 1] - blocks.indptr[row]) * blocks.columns;
    if (length == 0) continue;
    for (int64_t inner = 0; inner < blocks.rows; inner += kHeight) {
      const int64_t rows = lesser(kHeight, blocks.rows - inner);
      copy_columns<T, L>(unit.grad + row * blocks.rows + inner, unit.n_out, grad, rows,
                         unit.samples, rows);
      for (int64_t column = 0; column < length; column += N * L) {
        const int64_t count = lesser(N * L, length - column);
        if (count <= L) {
          value_columns<T, 1, P>(unit, row, column, count, inner, rows, grad);
        } else if (N == 2 || count <= 2 * L) {
          value_columns<T, 2, P>(unit, row, column, count, inner, rows, grad);
        } else {
          value_columns<T, N, P>(unit, row, column, count, inner, rows, grad);
        }
      }
    }
  }
}

template <typename T>
void block_values(const BlockValuesUnit<T>& unit) {
  constexpr int L = kLanes<T>;
  if (!unit.panels) return value_rows<T, 0>(unit);
  if (unit.blocks.columns % L == 0) return value_rows<T, 1>(unit);
  if constexpr (L >= 8) if (unit.blocks.columns == L / 2) return value_rows<T, 2>(unit);
  if constexpr (L >= 16) if (unit.blocks.columns == L / 4) return value_rows<T, 4>(unit);
  __builtin_trap();
}

}  // namespace
}  // namespace regrow
