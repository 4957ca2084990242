// Tiles of a batch for the products of weights with a structure, packed by the kernel of all.
#pragma once

#include <algorithm>
#include <cstdint>

#include "isa.h"
#include "pool.h"
#include "products.h"
#include "scratch.h"
#include "structured_units.h"

namespace regrow {

inline const StructuredIsa& structured_isa() {
#if defined(REGROW_X86)
  if (&isa() == &isa_avx512) return structured_avx512;
  if (&isa() == &isa_avx2) return structured_avx2;
#endif
  return structured_portable;
}

template <typename T>
const StructuredKernels<T>& structured_kernels() {
  if constexpr (sizeof(T) == 4) {
    return structured_isa().single;
  } else {
    return structured_isa().wide;
  }
}

// Multiply-adds below which a second thread costs more than it brings.
constexpr std::int64_t kStructuredSerialWork = 1'000'000;

// A batch in tiles of some whole vectors; the last one may be narrower.
struct Strips {
  std::int64_t batch, count;
  std::int32_t width, last;

  Strips(std::int64_t samples, std::int32_t lanes, std::int32_t vectors)
      : batch(samples), count((samples + lanes * vectors - 1) / (lanes * vectors)),
        width(lanes * vectors) {
    const std::int64_t rest = samples - (count - 1) * width;
    last = 1;
    while (last < lanes && last < rest) last *= 2;
    while (last < rest) last += lanes;
  }
  std::int64_t sample(std::int64_t tile) const { return tile * width; }
  std::int32_t width_of(std::int64_t tile) const { return tile + 1 < count ? width : last; }
  std::int32_t samples_of(std::int64_t tile) const {
    return static_cast<std::int32_t>(std::min<std::int64_t>(width, batch - sample(tile)));
  }
};

// Runs `work(packed, tile, part, parts, slot)` for every tile and every part of its outputs.  One
// thread packs a tile and uses it while it is in its cache; where there are few tiles for the
// threads, some are packed first and their outputs shared out.
template <typename T, typename F>
void for_tiles(const T* source, std::int64_t features, const Strips& strips, std::int64_t most_parts,
               int threads, F&& work) {
  constexpr std::int64_t kBytes = std::int64_t{64} << 20;
  const std::int64_t room = (features * strips.width + 15) / 16 * 16;
  const auto pack = [&](std::int64_t tile, T* packed) {
    product_kernels<T>().pack({source + strips.sample(tile) * features, packed, features, 0,
                               features, strips.width_of(tile), strips.samples_of(tile)});
  };
  Scratch scratch;
  if (threads == 1 || strips.count >= 2 * threads) {
    T* const buffers = scratch.get<T>(threads * room);
    parallel(strips.count, threads, [&](std::int64_t tile, int slot) {
      pack(tile, buffers + slot * room);
      work(buffers + slot * room, tile, std::int64_t{0}, std::int64_t{1});
    });
    return;
  }
  const std::int64_t fit =
      std::max<std::int64_t>(1, kBytes / (room * static_cast<std::int64_t>(sizeof(T))));
  const std::int64_t group = std::min(strips.count, fit);
  T* const packed = scratch.get<T>(group * room);
  for (std::int64_t first = 0; first < strips.count; first += group) {
    const std::int64_t tiles = std::min(group, strips.count - first);
    parallel(tiles, threads,
             [&](std::int64_t tile, int) { pack(first + tile, packed + tile * room); });
    const std::int64_t parts = std::clamp<std::int64_t>(8 * threads / tiles, 1, most_parts);
    parallel(tiles * parts, threads, [&](std::int64_t unit, int) {
      work(packed + unit / parts * room, first + unit / parts, unit % parts, parts);
    });
  }
}

}  // namespace regrow
