#include "driver.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "denormals.h"
#include "isa.h"
#include "pool.h"
#include "products.h"
#include "scratch.h"

namespace regrow {
namespace {

using Size = std::int64_t;

// Multiply-adds below which a second thread costs more than it brings.
constexpr Size kSerialWork = 500'000;
constexpr Size kUnitWork = 100'000;
constexpr Size kMostTileWork = 4'000'000;
// Rows and columns are split at multiples of this, whole cache lines of the outputs.
constexpr Size kAlign = 16;
// What a row or column costs beside its connections, in connections.
constexpr Size kRowCost = 4;
// Connections of a row below which turning the operands is most of the work.
constexpr Size kFewInRow = 32;
// Connections in a part of a backward pass: each packs and reads the whole operand, and has room for
// its values and their gradients in column order.
constexpr Size kLeastPart = 4096;
constexpr Size kUsualPart = 65'536;
constexpr Size kMostPart = 1'048'576;
// Connections of a part for each feature, at least, so that packing the operand anew for every part
// is little beside them.
constexpr Size kPartShare = 64;
// Values and their gradients in row order lie all over the memory for who goes through the columns:
// where they are too large for the cache, they are asked for so many connections before their turn.
constexpr Size kAhead = 64;
constexpr Size kPackedBytes = Size{64} << 20;
// Samples of a feature in a tile, where nothing speaks for more or fewer: two cache lines.
constexpr Size kUsualBytes = 128;

Size ceil_div(Size a, Size b) { return (a + b - 1) / b; }

// Bytes of so many elements, in whole cache lines.
template <typename T>
Size whole_lines(Size count) {
  return ceil_div(count * Size{sizeof(T)}, 64) * 64;
}

// ---- Tiles

// Narrowest width that the kernels know for this many samples.
std::int32_t narrowest(Size samples, std::int32_t least, std::int32_t lanes) {
  std::int32_t width = least;
  while (width < lanes && width < samples) width *= 2;
  if (width >= samples) return width;
  const Size vectors = ceil_div(samples, lanes);
  return static_cast<std::int32_t>((vectors > 4 ? 8 : vectors) * lanes);
}

// Tiles with so many bytes of each feature.
template <typename T, typename A>
Tiles tiles_of(Size batch, Size bytes, const ProductKernels<T, A>& kernels) {
  const Size width = bytes / Size{sizeof(A)};
  Tiles tiles{};
  tiles.batch = batch;
  tiles.count = ceil_div(batch, width);
  tiles.last = narrowest(batch - (tiles.count - 1) * width, kernels.least, kernels.lanes);
  tiles.width = tiles.count == 1 ? tiles.last : static_cast<std::int32_t>(width);
  return tiles;
}

// Two cache lines of samples for every feature are best over a wide range.  More pay while the tile
// takes no more than its share of the second-level cache, one line only if two are far too much for
// it.  A feature-major operand that is one tile need not be packed.
template <typename T, typename A>
Tiles plan(Size batch, Size features, const ProductKernels<T, A>& kernels, bool by_features = false,
           Size share = level2_bytes() / 2) {
  const Size most = kernels.vectors * kernels.lanes * Size{sizeof(A)};
  const Size all = batch * Size{sizeof(A)};
  if (by_features && all <= most && features * all <= share) return tiles_of(batch, most, kernels);
  Size bytes = features * kUsualBytes > 2 * level2_bytes() ? 64 : kUsualBytes;
  while (bytes < most && features * 2 * bytes <= share) bytes *= 2;
  return tiles_of(batch, std::min(bytes, most), kernels);
}

Size packed_samples(const Tiles& tiles) { return (tiles.count - 1) * tiles.width + tiles.last; }
std::int32_t width_of(const Tiles& tiles, Size tile) {
  return tile + 1 < tiles.count ? tiles.width : tiles.last;
}
std::int32_t samples_of(const Tiles& tiles, Size tile) {
  return static_cast<std::int32_t>(std::min<Size>(tiles.width, tiles.batch - tile * tiles.width));
}

// Tiles that are packed at a time, so that the packed operand stays bounded.
Size tiles_at_a_time(const Tiles& tiles, Size features, Size element) {
  return std::max<Size>(1, kPackedBytes / std::max<Size>(1, features * tiles.width * element));
}

// The tiles [first, first + count) as a batch of their own.
Tiles part_of(const Tiles& tiles, Size first, Size count) {
  Tiles part = tiles;
  part.count = std::min(count, tiles.count - first);
  const bool ends = first + part.count == tiles.count;
  part.batch = ends ? tiles.batch - first * tiles.width : part.count * tiles.width;
  if (!ends) part.last = tiles.width;
  return part;
}

// Activations or their gradients as they lie in the memory.
template <typename A>
struct Activations {
  A* data;  // may be null
  Size features;
  Size pitch;  // 0 for row-major ones
  A* from(Size sample) const { return data ? data + sample * (pitch ? 1 : features) : nullptr; }
};

template <typename A>
Activations<A> activations(A* data, Size batch, Size features, bool by_features) {
  return {data, features, by_features ? batch : 0};
}

// Brings the samples from `first` on into tiles, side by side; what is one such tile as it lies is
// left there.
template <typename T, typename A>
const A* pack(const Activations<const A>& all, Size first, const Tiles& tiles, A* packed,
              int threads, const Activations<const A>& gate = {}) {
  if (all.pitch && all.pitch == tiles.width && tiles.count == 1 && !gate.data) return all.data;
  const auto run_pack = product_kernels<T, A>().pack;
  const Size features = all.features;
  Size blocks = 1;
  if (threads > 1 && features * tiles.batch >= kSerialWork)
    blocks = std::max<Size>(1, std::min(2 * threads / tiles.count, features / 256));
  parallel(tiles.count * blocks, threads, [&](Size unit, int) {
    const Size tile = unit / blocks, block = unit % blocks;
    const Size step = ceil_div(ceil_div(features, blocks), kAlign) * kAlign;
    const Size sample = tile * tiles.width;
    run_pack({all.from(first + sample), packed + sample * features, features,
              std::min(features, block * step), std::min(features, (block + 1) * step),
              width_of(tiles, tile), samples_of(tiles, tile), gate.from(first + sample),
              all.pitch, gate.pitch});
  });
  return packed;
}

// Adds up the samples of packed tiles, a tile after the other.
template <typename T, typename A>
void add_samples(const A* packed, Size features, const Tiles& tiles, T* sums, int threads) {
  const Size step = ceil_div(ceil_div(features, threads), kAlign) * kAlign;
  parallel(ceil_div(features, step), threads, [&](Size block, int) {
    for (Size tile = 0; tile < tiles.count; ++tile)
      product_kernels<T, A>().sum({packed + tile * tiles.width * features, sums, block * step,
                                   std::min(features, (block + 1) * step), width_of(tiles, tile)});
  });
}

// ---- Split of rows (or columns) by connections

Size cost_before(const Size* indptr, Size row) { return indptr[row] + kRowCost * row; }

// First row of part `part` of `parts`, a multiple of kAlign.
Size split(const Size* indptr, Size rows, Size part, Size parts) {
  if (part == 0) return 0;
  if (part == parts) return rows;
  const Size target = cost_before(indptr, rows) / parts * part;
  Size low = 0, high = rows;
  while (low < high) {
    const Size middle = (low + high) / 2;
    if (cost_before(indptr, middle) < target) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return std::min(rows, ceil_div(low, kAlign) * kAlign);
}

struct Parts {
  std::vector<Size> starts;
  Size connections;  // of the largest
  Size count() const { return static_cast<Size>(starts.size()) - 1; }
};

// Parts of the columns for the backward pass, which reads the whole packed operand for each.
Parts parts_of(const Size* t_indptr, Size columns, Size features, int threads, bool in_place) {
  const Size cost = cost_before(t_indptr, columns);
  Size wanted = threads == 1 ? cost : std::max(cost / ((in_place ? 3 : 4) * threads), kLeastPart);
  if (!in_place)
    wanted = std::min(wanted, std::clamp(kPartShare * features, kUsualPart, kMostPart));
  const Size count =
      std::clamp<Size>(cost / std::max<Size>(1, wanted), 1, ceil_div(columns, kAlign));
  Parts parts{std::vector<Size>(static_cast<std::size_t>(count) + 1), 0};
  for (Size part = 1; part <= count; ++part) {
    const Size first = parts.starts[part - 1], last = split(t_indptr, columns, part, count);
    parts.starts[part] = last;
    parts.connections = std::max(parts.connections, t_indptr[last] - t_indptr[first]);
  }
  return parts;
}

// Meets numbers in row order, to be read or written, with those in column order.
template <int Write, typename Row, typename T, typename F>
void by_columns(Row* rows, const std::int32_t* perm, Size count, bool far, T* columns, F&& meet) {
  for (Size c = 0; c < count; ++c) {
    if (far) __builtin_prefetch(rows + perm[std::min(c + kAhead, count - 1)], Write, 3);
    meet(rows[perm[c]], columns[c]);
  }
}

int threads_for(Size work, int threads) { return work < kSerialWork ? 1 : std::max(1, threads); }

template <typename T, typename A>
Activations<const A> x_of(const Forward<T, A>& p) {
  return activations(p.x, p.batch, p.n_in, p.x_by_features);
}

// Each thread packs a tile and uses it while it is in its cache.
template <typename T, typename A>
void forward_by_tiles(const Forward<T, A>& p, const ProductKernels<T, A>& k, const Tiles& tiles,
                      int threads) {
  Scratch scratch;
  const Size room = ceil_div(tiles.width * p.n_in, kAlign) * kAlign;
  A* const buffers = scratch.get<A>(threads * room);
  parallel(tiles.count, threads, [&](Size tile, int slot) {
    const FlushDenormals flushed;
    const Size sample = tile * tiles.width;
    const A* const operand =
        pack<T>(x_of(p), sample, part_of(tiles, tile, 1), buffers + slot * room, 1);
    const auto y = activations(p.y, p.batch, p.n_out, p.y_by_features);
    k.forward({operand, p.values, p.indptr, p.indices, p.bias, y.from(sample), y.pitch, p.n_out, 0,
               p.n_out, width_of(tiles, tile), samples_of(tiles, tile), p.rectified});
  });
}

// Few tiles, or large ones: they are packed first and their rows shared out.
template <typename T, typename A>
void forward_by_rows(const Forward<T, A>& p, const ProductKernels<T, A>& k, const Tiles& tiles,
                     int threads) {
  const Size group = tiles_at_a_time(tiles, p.n_in, sizeof(A));
  const Size most_blocks = p.nnz * tiles.width / kUnitWork;
  Scratch scratch;
  A* const packed = scratch.get<A>(packed_samples(part_of(tiles, 0, group)) * p.n_in);
  for (Size first = 0; first < tiles.count; first += group) {
    const Tiles part = part_of(tiles, first, group);
    const Size sample = first * tiles.width;
    const A* const operand = pack<T>(x_of(p), sample, part, packed, threads);
    const Size blocks = std::clamp<Size>(std::min(ceil_div(8 * threads, part.count), most_blocks),
                                         1, ceil_div(p.n_out, kAlign));
    parallel(part.count * blocks, threads, [&](Size unit, int) {
      const FlushDenormals flushed;
      const Size tile = unit / blocks, block = unit % blocks;
      const Size start = tile * part.width;
      const auto y = activations(p.y, p.batch, p.n_out, p.y_by_features);
      k.forward({operand + start * p.n_in, p.values, p.indptr, p.indices, p.bias,
                 y.from(sample + start), y.pitch, p.n_out, split(p.indptr, p.n_out, block, blocks),
                 split(p.indptr, p.n_out, block + 1, blocks), width_of(part, tile),
                 samples_of(part, tile), p.rectified});
    });
  }
}

// As many samples as one vector holds, in row order: see `rows_tile`.
template <typename T>
void backward_in_rows(const Backward<T>& p, const Kernels<T>& k, int threads) {
  Tiles tiles = tiles_of(p.batch, k.lanes * Size{sizeof(T)}, k);
  const std::int32_t width = tiles.width, samples = static_cast<std::int32_t>(p.batch);
  Scratch scratch;
  const Size rows = whole_lines<T>(p.n_out * width), columns = whole_lines<T>(p.n_in * width);
  char* const room = scratch.get<char>(rows + 2 * columns);
  T* const x = reinterpret_cast<T*>(room + rows);
  const Activations<const T> all_x{p.x, p.n_in, 0}, y{p.y, p.n_out, 0};
  const T* const grad = pack<T>(Activations<const T>{p.grad, p.n_out, 0}, 0, tiles,
                                reinterpret_cast<T*>(room), threads, y);
  if (p.dbias) add_samples<T>(grad, p.n_out, tiles, p.dbias, threads);
  RowsUnit<T> all{grad, x, p.values, p.indptr, p.indices, nullptr, p.dvalues, p.n_in,
                  p.n_out, 0, p.n_out, 0, p.n_in, width};
  const auto unpack = [&](const T* dx, Size first, Size last, std::int32_t pitch) {
    k.unpack({dx, p.dx, p.n_in, first, last, pitch, samples});
  };
  if (threads == 1 && p.dx && p.dvalues) {
    tiles.width = tiles.last = 2 * width;  // the zeros behind the samples are the sums to be
    pack<T>(all_x, 0, tiles, x, threads);
    const FlushDenormals flushed;
    all.dx = x + width;
    k.backward_rows(all);
    return unpack(all.dx, 0, p.n_in, 2 * width);
  }
  // Some threads have rows, whose values nobody else writes, and others columns, to whose sums nobody
  // else adds.
  T* const dx = reinterpret_cast<T*>(room + rows + columns);
  const Size by_columns = !p.dx ? 0 : !p.dvalues ? threads : std::max(1, threads / 2);
  const Size by_rows = !p.dvalues ? 0 : std::max<Size>(1, threads - by_columns);
  const Size step = ceil_div(ceil_div(p.n_in, std::max<Size>(1, by_columns)), kAlign) * kAlign;
  if (p.dvalues) pack<T>(all_x, 0, tiles, x, threads);
  parallel(by_columns + by_rows, threads, [&](Size part, int) {
    const FlushDenormals flushed;
    RowsUnit<T> unit = all;
    if (part >= by_columns) {
      unit.first_row = split(p.indptr, p.n_out, part - by_columns, by_rows);
      unit.last_row = split(p.indptr, p.n_out, part - by_columns + 1, by_rows);
      return k.backward_rows(unit);
    }
    unit.first = std::min(p.n_in, part * step);
    unit.last = std::min(p.n_in, unit.first + step);
    unit.dx = dx;
    unit.dvalues = nullptr;
    std::fill(dx + unit.first * width, dx + unit.last * width, T(0));
    k.backward_rows(unit);
    unpack(dx, unit.first, unit.last, width);
  });
}

}  // namespace

template <typename T, typename A>
void run(const Forward<T, A>& product, int threads) {
  if (product.batch == 0 || product.n_out == 0) return;
  const ProductKernels<T, A>& k = product_kernels<T, A>();
  const Size work = product.batch * (product.nnz + product.n_in + product.n_out);
  threads = threads_for(work, threads);
  // Operands are turned faster a little at a time.
  const bool few = product.nnz < kFewInRow * product.n_out && !product.x_by_features;
  const Tiles tiles = plan(product.batch, product.n_in, k, product.x_by_features,
                           level2_bytes() / (few ? 4 : 2));
  if (threads == 1 || (tiles.count >= 2 * threads && work / tiles.count <= kMostTileWork)) {
    forward_by_tiles(product, k, tiles, threads);
  } else {
    forward_by_rows(product, k, tiles, threads);
  }
}

template <typename T, typename A>
void run(const Backward<T, A>& product, int threads) {
  const Backward<T, A>& p = product;
  if (p.batch == 0 && p.dvalues) std::fill(p.dvalues, p.dvalues + p.nnz, T(0));
  if (p.dbias) std::fill(p.dbias, p.dbias + p.n_out, T(0));
  if (p.batch == 0 || p.n_in == 0 || (!p.dx && !p.dvalues)) return;
  const ProductKernels<T, A>& k = product_kernels<T, A>();
  if (p.dvalues) prefer_large_pages(p.dvalues, p.nnz);
  threads = threads_for(p.batch * (p.nnz + p.n_in + p.n_out), threads);
  if constexpr (std::is_same_v<T, A>)
    if (p.batch <= k.lanes)
      return backward_in_rows(p, product_kernels<T>(), threads);
  const Tiles tiles = plan(p.batch, p.n_out, k, p.grad_by_features);
  // Values and their gradients are needed in column order, while they are stored in row order.  Where
  // one tile is all, they are read and written where they are; else that would be done anew for every
  // tile, and parts of them are brought into column order first.
  const bool in_place = tiles.count == 1;
  const Parts parts = parts_of(p.t_indptr, p.n_in, p.n_out, threads, in_place);
  // One thread packs a tile when it comes to it, as in the forward pass; several share all tiles.
  const bool shared = threads > 1;
  const Size group = shared ? tiles_at_a_time(tiles, p.n_out, sizeof(A)) : tiles.count;
  const Size packed_tiles = shared ? packed_samples(part_of(tiles, 0, group)) : tiles.width;
  const Size packed = whole_lines<A>(packed_tiles * p.n_out);
  const Size ordered = in_place ? 0 : whole_lines<T>(parts.connections);
  const auto x = activations(p.x, p.batch, p.n_in, p.x_by_features);
  const auto dx = activations(p.dx, p.batch, p.n_in, p.x_by_features);
  const auto grad = activations(p.grad, p.batch, p.n_out, p.grad_by_features);
  const auto y = activations(p.y, p.batch, p.n_out, p.y_by_features);
  Scratch scratch;
  char* const buffers = scratch.get<char>(packed + threads * 2 * ordered);
  const bool far = p.nnz * Size{sizeof(T)} > level2_bytes() / 4;
  for (Size first = 0; first < tiles.count; first += group) {
    const Tiles part = part_of(tiles, first, group);
    const auto pack_grad = [&](Size sample, const Tiles& some, T* dbias) {
      const A* const packed_grad =
          pack<T>(grad, sample, some, reinterpret_cast<A*>(buffers), threads, y);
      if (dbias) add_samples<T>(packed_grad, p.n_out, some, dbias, threads);
      return packed_grad;
    };
    const A* const operand = shared ? pack_grad(first * tiles.width, part, p.dbias) : nullptr;
    parallel(parts.count(), threads, [&](Size unit, int slot) {
      const FlushDenormals flushed;
      char* const room = buffers + packed + slot * 2 * ordered;
      const Size columns = parts.starts[unit], last = parts.starts[unit + 1];
      const Size begin = p.t_indptr[columns], count = p.t_indptr[last] - begin;
      const std::int32_t* const perm = p.t_perm + begin;
      T* const values = reinterpret_cast<T*>(room);
      T* const dvalues = reinterpret_cast<T*>(room + ordered);
      if (!in_place && p.dx)
        by_columns<0>(p.values, perm, count, far, values, [](T from, T& to) { to = from; });
      if (!in_place && p.dvalues) std::fill(dvalues, dvalues + count, T(0));
      for (Size tile = 0; tile < part.count; ++tile) {
        const Size start = tile * part.width, sample = first * tiles.width + start;
        const A* const tile_grad =
            shared ? operand + start * p.n_out
                   : pack_grad(sample, part_of(part, tile, 1), unit == 0 ? p.dbias : nullptr);
        BackwardUnit<T, A> work{tile_grad, x.from(sample), p.values, p.t_indptr, p.t_indices,
                                p.t_perm, dx.from(sample), p.dvalues, x.pitch, p.n_in, columns,
                                last, width_of(part, tile), samples_of(part, tile), far};
        if (!in_place) {
          work.values = values - begin;
          work.t_perm = nullptr;
          if (p.dvalues) work.dvalues = dvalues - begin;
        }
        k.backward(work);
      }
      if (in_place || !p.dvalues) return;
      if (first > 0) {
        by_columns<1>(p.dvalues, perm, count, far, dvalues, [](T& to, T sum) { to += sum; });
      } else {
        by_columns<1>(p.dvalues, perm, count, far, dvalues, [](T& to, T sum) { to = sum; });
      }
    });
  }
}

template <typename T>
void run(const Pairs<T>& product, int threads) {
  const Pairs<T>& p = product;
  std::fill(p.products, p.products + p.count, T(0));
  if (p.batch == 0 || p.count == 0) return;
  const Kernels<T>& k = product_kernels<T>();
  threads = threads_for(p.batch * (p.count + p.n_in + p.n_out), threads);
  const Size features = p.n_in + p.n_out;
  const Tiles tiles = plan(p.batch, features, k);
  const Size group = tiles_at_a_time(tiles, features, sizeof(T));
  const Size unit_pairs = 4096;
  Scratch scratch;
  const Size samples = packed_samples(part_of(tiles, 0, group));
  const Size room = ceil_div(samples * p.n_out, kAlign) * kAlign;
  T* const packed_grad = scratch.get<T>(room + samples * p.n_in);
  T* const packed_x = packed_grad + room;
  for (Size first = 0; first < tiles.count; first += group) {
    const Tiles part = part_of(tiles, first, group);
    const Size sample = first * tiles.width;
    const T* const grad = pack<T>(Activations<const T>{p.grad, p.n_out, 0}, sample, part,
                                  packed_grad, threads);
    const T* const x =
        pack<T>(Activations<const T>{p.x, p.n_in, 0}, sample, part, packed_x, threads);
    parallel(ceil_div(p.count, unit_pairs), threads, [&](Size unit, int) {
      const FlushDenormals flushed;
      for (Size tile = 0; tile < part.count; ++tile) {
        const Size start = tile * part.width;
        k.pairs({grad + start * p.n_out, x + start * p.n_in, p.rows, p.columns, p.products,
                 unit * unit_pairs, std::min(p.count, (unit + 1) * unit_pairs),
                 width_of(part, tile)});
      }
    });
  }
}

template void run(const Forward<float>&, int);
template void run(const Forward<double>&, int);
template void run(const Forward<float, BFloat16>&, int);
template void run(const Backward<float>&, int);
template void run(const Backward<double>&, int);
template void run(const Backward<float, BFloat16>&, int);
template void run(const Pairs<float>&, int);
template void run(const Pairs<double>&, int);

}  // namespace regrow
