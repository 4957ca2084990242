#include "blocks.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "structured_tiles.h"

namespace regrow {
namespace {

using Size = std::int64_t;

// What a block row costs beside its blocks, in blocks.
constexpr Size kRowCost = 1;

// First group (block row or column) of part `part` of `parts`, by blocks.
Size split(const Size* indptr, Size groups, Size part, Size parts) {
  if (part == parts) return groups;
  const Size target = (indptr[groups] + kRowCost * groups) / parts * part;
  Size low = 0, high = groups;
  while (low < high) {
    const Size middle = (low + high) / 2;
    if (indptr[middle] + kRowCost * middle < target) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

template <typename T>
int threads_for(const BlockShape& s, const Blocks& blocks, int threads) {
  const Size work = s.batch * (s.blocks * blocks.rows * blocks.columns + s.n_in + s.n_out);
  return work < kStructuredSerialWork ? 1 : std::max(1, threads);
}

template <typename T>
void run_tiles(const T* source, Size features, const BlockUnit<T>& whole, const Size* indptr,
               Size groups, Size batch, int threads) {
  const auto& kernels = structured_kernels<T>();
  const Strips strips(batch, kernels.lanes, kernels.block_vectors);
  for_tiles(source, features, strips, groups, threads,
            [&](const T* packed, Size tile, Size part, Size parts) {
              BlockUnit<T> unit = whole;
              unit.packed = packed;
              unit.out += strips.sample(tile) * whole.stride;
              unit.first = split(indptr, groups, part, parts);
              unit.last = split(indptr, groups, part + 1, parts);
              unit.width = strips.width_of(tile);
              unit.samples = strips.samples_of(tile);
              kernels.block(unit);
            });
}

// Whether blocks so wide fill vectors, or some of them one vector.
bool fits(Size columns, Size lanes) {
  return columns % lanes == 0 || (columns >= 4 && (columns * 2 == lanes || columns * 4 == lanes));
}

template <typename T>
void run_values(const BlockBackward<T>& p, int threads) {
  const auto& kernels = structured_kernels<T>();
  const BlockShape& s = p.shape;
  const Size rows = s.n_out / p.blocks.rows, lanes = kernels.lanes;
  const Size count = (s.n_in + lanes - 1) / lanes;
  const Size most = std::min<Size>(s.batch, kValueSamples);
  const bool packed = fits(p.blocks.columns, lanes);
  Scratch scratch;
  T* const panels = packed ? scratch.get<T>(count * lanes * most) : nullptr;
  for (Size sample = 0; sample < s.batch; sample += most) {
    const Size samples = std::min(most, s.batch - sample);
    const T* const x = p.x + sample * s.n_in;
    if (packed) {
      const Size parts = threads == 1 ? 1 : std::min<Size>(count, 2 * threads);
      parallel(parts, threads, [&](Size part, int) {
        kernels.panels({x, panels, s.n_in, samples, count * part / parts,
                        count * (part + 1) / parts});
      });
    }
    const Size parts = threads == 1 ? 1 : std::min<Size>(rows, 8 * threads);
    parallel(parts, threads, [&](Size part, int) {
      kernels.block_values({p.grad + sample * s.n_out, x, panels, p.dvalues, p.blocks, samples,
                            s.n_in, s.n_out, split(p.blocks.indptr, rows, part, parts),
                            split(p.blocks.indptr, rows, part + 1, parts), sample > 0});
    });
  }
}

[[noreturn]] void fail(const std::string& message) { throw std::invalid_argument(message); }

std::string at(const char* name, Size place) {
  return std::string(name) + "[" + std::to_string(place) + "]";
}

void check_pointers(const char* name, const Size* indptr, Size groups, Size blocks) {
  if (indptr[0] != 0) fail(at(name, 0) + " must be 0, got " + std::to_string(indptr[0]));
  for (Size group = 0; group < groups; ++group)
    if (indptr[group + 1] < indptr[group])
      fail(at(name, group + 1) + " must not be below the one before it, " +
           std::to_string(indptr[group]) + ", got " + std::to_string(indptr[group + 1]));
  if (indptr[groups] != blocks)
    fail(at(name, groups) + " must be the number of blocks, " + std::to_string(blocks) + ", got " +
         std::to_string(indptr[groups]));
}

void check_rising(const char* name, const Size* indptr, const std::int32_t* indices, Size groups,
                  Size limit) {
  for (Size group = 0; group < groups; ++group)
    for (Size b = indptr[group]; b < indptr[group + 1]; ++b) {
      if (indices[b] < 0 || indices[b] >= limit)
        fail(at(name, b) + " must be in [0, " + std::to_string(limit) + "), got " +
             std::to_string(indices[b]));
      if (b > indptr[group] && indices[b] <= indices[b - 1])
        fail(at(name, b) + " must be above the one before it, " + std::to_string(indices[b - 1]) +
             ", got " + std::to_string(indices[b]));
    }
}

}  // namespace

template <typename T>
void run(const BlockForward<T>& product, int threads) {
  const BlockForward<T>& p = product;
  const BlockShape& s = p.shape;
  if (s.batch == 0 || s.n_out == 0) return;
  const BlockUnit<T> unit{nullptr, p.values, p.blocks, {}, p.bias, p.y, s.n_out, 0, 0, 0, 0};
  run_tiles(p.x, s.n_in, unit, p.blocks.indptr, s.n_out / p.blocks.rows, s.batch,
            threads_for<T>(s, p.blocks, threads));
}

template <typename T>
void run(const BlockBackward<T>& product, int threads) {
  const BlockBackward<T>& p = product;
  const BlockShape& s = p.shape;
  const Size nnz = s.blocks * p.blocks.rows * p.blocks.columns;
  threads = threads_for<T>(s, p.blocks, threads);
  if (p.dvalues && s.batch == 0) std::fill(p.dvalues, p.dvalues + nnz, T(0));
  if (s.batch == 0) return;
  if (p.dx && s.n_in > 0) {
    const BlockUnit<T> unit{nullptr, p.values, p.blocks, p.turned, nullptr, p.dx, s.n_in, 0, 0, 0, 0};
    run_tiles(p.grad, s.n_out, unit, p.turned.indptr, s.n_in / p.blocks.columns, s.batch, threads);
  }
  if (p.dvalues && nnz > 0) run_values(p, threads);
}

void check_blocks(const Blocks& blocks, const BlockShape& shape) {
  const Size rows = shape.n_out / blocks.rows, columns = shape.n_in / blocks.columns;
  check_pointers("indptr", blocks.indptr, rows, shape.blocks);
  check_rising("indices", blocks.indptr, blocks.indices, rows, columns);
}

void check_turned(const Blocks& blocks, const TurnedBlocks& turned, const BlockShape& shape) {
  const Size rows = shape.n_out / blocks.rows, columns = shape.n_in / blocks.columns;
  check_pointers("t_indptr", turned.indptr, columns, shape.blocks);
  check_rising("t_indices", turned.indptr, turned.indices, columns, rows);
  for (Size column = 0; column < columns; ++column)
    for (Size b = turned.indptr[column]; b < turned.indptr[column + 1]; ++b) {
      const Size slot = turned.slots[b], row = turned.indices[b];
      if (slot < blocks.indptr[row] || slot >= blocks.indptr[row + 1] ||
          blocks.indices[slot] != column)
        fail(at("t_slots", b) + " must be the block at block row " + std::to_string(row) +
             " and block column " + std::to_string(column) + ", got " + std::to_string(slot));
    }
}

template void run(const BlockForward<float>&, int);
template void run(const BlockForward<double>&, int);
template void run(const BlockBackward<float>&, int);
template void run(const BlockBackward<double>&, int);

}  // namespace regrow
