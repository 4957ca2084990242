#include "groups.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "structured_tiles.h"

namespace regrow {
namespace {

using Size = std::int64_t;

// Rows or columns are split at multiples of this, whole cache lines of the outputs.
constexpr Size kAlign = 16;

int threads_for(Size batch, Size n_in, Size n_out, const Groups& groups, int threads) {
  const Size work = batch * (n_in / groups.m * groups.n * n_out + n_in + n_out);
  return work < kStructuredSerialWork ? 1 : std::max(1, threads);
}

// First of `count` things in part `part` of `parts`, a multiple of `align`.
Size split(Size count, Size part, Size parts, Size align) {
  return part == parts ? count : count * part / parts / align * align;
}

}  // namespace

template <typename T>
void run(const GroupsForward<T>& product, int threads) {
  const GroupsForward<T>& p = product;
  if (p.batch == 0 || p.n_out == 0) return;
  const auto& kernels = structured_kernels<T>();
  const Strips strips(p.batch, kernels.lanes, kernels.group_vectors);
  threads = threads_for(p.batch, p.n_in, p.n_out, p.groups, threads);
  const Size most = std::max<Size>(1, p.n_out / kAlign);
  for_tiles(p.x, p.n_in, strips, most, threads,
            [&](const T* packed, Size tile, Size part, Size parts) {
              kernels.groups({packed, p.values, p.groups, p.bias,
                              p.y + strips.sample(tile) * p.n_out, p.n_in, p.n_out,
                              split(p.n_out, part, parts, kAlign),
                              split(p.n_out, part + 1, parts, kAlign), strips.width_of(tile),
                              strips.samples_of(tile)});
            });
}

template <typename T>
void run(const GroupsBackward<T>& product, int threads) {
  const GroupsBackward<T>& p = product;
  const Size all = p.n_in / p.groups.m;
  if (p.batch == 0 && p.dvalues) std::fill(p.dvalues, p.dvalues + all * p.groups.n * p.n_out, T(0));
  if (p.batch == 0 || all == 0 || (!p.dx && !p.dvalues)) return;
  const auto& kernels = structured_kernels<T>();
  const Strips strips(p.batch, kernels.lanes, kernels.group_vectors);
  threads = threads_for(p.batch, p.n_in, p.n_out, p.groups, threads);
  const Size window = 2 * kGroupColumns * strips.width;
  // Whole windows and whole cache lines go to one thread.
  const Size align = std::max<Size>(1, kGroupColumns / p.groups.m);
  const Size parts = threads == 1 ? 1 : std::clamp<Size>(all / align, 1, 4 * threads);
  const Size room = (p.n_out * strips.width + kAlign - 1) / kAlign * kAlign;
  Scratch scratch;
  T* const packed = scratch.get<T>(room + threads * window);
  T* const windows = packed + room;
  for (Size tile = 0; tile < strips.count; ++tile) {
    const Size sample = strips.sample(tile), width = strips.width_of(tile);
    const Size cuts = threads == 1 ? 1 : std::clamp<Size>(p.n_out / 256, 1, 2 * threads);
    parallel(cuts, threads, [&](Size cut, int) {
      product_kernels<T>().pack(
          {p.grad + sample * p.n_out, packed, p.n_out, split(p.n_out, cut, cuts, kAlign),
           split(p.n_out, cut + 1, cuts, kAlign), static_cast<std::int32_t>(width),
           strips.samples_of(tile)});
    });
    parallel(parts, threads, [&](Size part, int slot) {
      kernels.groups_backward({packed, p.x + sample * p.n_in, p.values, p.groups,
                               p.dx ? p.dx + sample * p.n_in : nullptr, p.dvalues,
                               windows + slot * window, p.n_in, p.n_out,
                               split(all, part, parts, align), split(all, part + 1, parts, align),
                               static_cast<std::int32_t>(width), strips.samples_of(tile),
                               tile > 0});
    });
  }
}

void check_places(const Groups& groups, std::int64_t nnz) {
  if (groups.m > 255) return;
  bool bad = false;
  const auto limit = static_cast<std::uint8_t>(groups.m);
  for (Size k = 0; k < nnz; ++k) bad |= groups.places[k] >= limit;
  for (Size k = 0; bad && k < nnz; ++k)
    if (groups.places[k] >= limit)
      throw std::invalid_argument("places[" + std::to_string(k) + "] must be in [0, " +
                                  std::to_string(groups.m) + "), got " +
                                  std::to_string(groups.places[k]));
}

template void run(const GroupsForward<float>&, int);
template void run(const GroupsForward<double>&, int);
template void run(const GroupsBackward<float>&, int);
template void run(const GroupsBackward<double>&, int);

}  // namespace regrow
