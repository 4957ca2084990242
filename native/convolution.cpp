#include "convolution.h"

#include <algorithm>
#include <vector>

#include "convolution_layout.h"
#include "convolution_units.h"
#include "isa.h"
#include "pool.h"
#include "scratch.h"

namespace regrow {
namespace {

using Size = std::int64_t;

// Multiply-adds below which a second thread costs more than it brings.
constexpr Size kSerialWork = 200'000;
// Channels that are packed at a time.
constexpr Size kPackChannels = 16;

const ConvIsa& conv_isa() {
#if defined(REGROW_X86)
  if (&isa() == &isa_avx512) return conv_avx512;
  if (&isa() == &isa_avx2) return conv_avx2;
#endif
  return conv_portable;
}

template <typename T>
const ConvKernels<T>& kernels();
template <>
const ConvKernels<float>& kernels<float>() {
  return conv_isa().single;
}
template <>
const ConvKernels<double>& kernels<double>() {
  return conv_isa().wide;
}

Size whole_lines(Size count) { return ceil_div(count, 16) * 16; }

// ---- Blocks of samples

struct Block {
  Size sample;
  std::int32_t width, samples;
};

std::vector<Block> blocks_of(Size batch, std::int32_t lanes) {
  std::vector<Block> blocks;
  for (Size sample = 0; sample < batch; sample += lanes) {
    const auto samples = static_cast<std::int32_t>(std::min<Size>(lanes, batch - sample));
    std::int32_t width = 1;
    while (width < samples) width *= 2;
    blocks.push_back({sample, width, samples});
  }
  return blocks;
}

// ---- Packed operands

template <typename T>
void pack(const Layout& layout, const T* source, const Block& block, Size first, Size last,
          T* packed) {
  ConvPackUnit<T> unit{};
  unit.sample_stride = layout.channels * layout.size[0] * layout.size[1] * layout.size[2];
  unit.source = source + block.sample * unit.sample_stride;
  unit.packed = packed;
  unit.first = first;
  unit.last = std::min(last, layout.channels);
  std::copy(layout.size, layout.size + 3, unit.size);
  std::copy(layout.room, layout.room + 3, unit.room);
  std::copy(layout.step, layout.step + 3, unit.step);
  std::copy(layout.margin, layout.margin + 3, unit.margin);
  unit.phases = layout.phases;
  unit.plane = layout.plane;
  unit.width = block.width;
  unit.samples = block.samples;
  kernels<T>().pack(unit);
}

// Room for the packed blocks of a group, and scratch memory for every thread.
template <typename T>
class Workspace {
 public:
  Workspace(Size blocks, Size pixels, std::int32_t lanes, int threads, Size scratch)
      : packed_(whole_lines(pixels * lanes + kConvSlack * lanes)), scratch_(whole_lines(scratch)) {
    memory_ = buffer_.template get<T>(blocks * packed_ + threads * scratch_);
    scratches_ = memory_ + blocks * packed_;
  }
  T* packed(Size block) const { return memory_ + block * packed_; }
  T* scratch(int slot) const { return scratches_ + slot * scratch_; }

 private:
  Size packed_, scratch_;
  Scratch buffer_;
  T* memory_;
  T* scratches_;
};

// Packs the blocks [first, first + count).
template <typename T>
void pack_group(const Layout& layout, const T* source, const Block* blocks, Size count,
                const Workspace<T>& workspace, std::int32_t lanes, int threads) {
  const Size parts = threads == 1 ? 1 : ceil_div(layout.channels, kPackChannels);
  const Size step = ceil_div(layout.channels, parts);
  parallel(count * parts, threads, [&](Size unit, int) {
    const Size block = unit / parts, part = unit % parts;
    T* const packed = workspace.packed(block);
    pack(layout, source, blocks[block], part * step, (part + 1) * step, packed);
    if (part == 0) {
      T* const end = packed + layout.pixels() * blocks[block].width;
      std::fill(end, end + kConvSlack * lanes, T(0));
    }
  });
}

int threads_for(Size work, int threads) { return work < kSerialWork ? 1 : std::max(1, threads); }

Size work_of(const ConvShape& shape, Size connections) {
  return shape.batch * (pixels_of(shape.out) * (connections + shape.n_out) +
                        pixels_of(shape.in) * shape.channels);
}

// ---- Backward

// The connections by input channel and class, see ConvBackwardUnit.
template <typename T>
struct ByInput {
  std::vector<Size> starts;
  std::vector<std::int32_t> offsets, slots;
  std::vector<T> values;
  Size classes;
};

template <typename T>
ByInput<T> by_input(const ConvBackward<T>& product, const Layout& layout) {
  const ConvShape& shape = product.shape;
  ByInput<T> sorted;
  sorted.classes = pixels_of(shape.stride);
  const std::vector<Place> places = gradient_places(shape, layout);
  const Size group_rows = shape.n_out / shape.groups;
  const Size group_keys = shape.channels / shape.groups * sorted.classes;
  const Size nnz = product.indptr[shape.n_out];
  std::vector<Size> next(static_cast<std::size_t>(shape.channels * sorted.classes) + 1, 0);
  const auto for_each = [&](auto&& body) {
    for (Size row = 0; row < shape.n_out; ++row)
      for (Size k = product.indptr[row]; k < product.indptr[row + 1]; ++k) {
        const Place& place = places[product.indices[k]];
        body(row, k, row / group_rows * group_keys + place.key, place.offset);
      }
  };
  for_each([&](Size, Size, Size key, Size) { ++next[key + 1]; });
  for (std::size_t key = 1; key < next.size(); ++key) next[key] += next[key - 1];
  sorted.starts = next;
  sorted.offsets.resize(nnz);
  sorted.slots.resize(nnz);
  sorted.values.resize(nnz);
  for_each([&](Size row, Size k, Size key, Size offset) {
    const Size slot = next[key]++;
    sorted.offsets[slot] = static_cast<std::int32_t>(row * layout.plane + offset);
    sorted.slots[slot] = static_cast<std::int32_t>(k);
    sorted.values[slot] = product.values[k];
  });
  return sorted;
}

// First channel of part `part` of `parts`, by connections and the work on the channel itself.
template <typename T>
Size split(const ByInput<T>& sorted, Size channels, Size part, Size parts) {
  const auto cost = [&](Size channel) {
    return sorted.starts[channel * sorted.classes] + 8 * channel;
  };
  const Size target = cost(channels) * part / parts;
  Size low = 0, high = channels;
  while (low < high) {
    const Size middle = (low + high) / 2;
    if (cost(middle) < target) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return part == parts ? channels : low;
}

template <typename T>
Size backward_scratch(const ConvShape& shape, const ByInput<T>& sorted,
                      const std::vector<ConvTile>& tiles, std::int32_t lanes) {
  Size pixels = 0, breadth = 0, most = 0;
  for (const ConvTile& tile : tiles) {
    pixels = std::max(pixels, tile.lines * tile.pixels);
    breadth = std::max(breadth, tile.pixels);
  }
  for (Size channel = 0; channel < shape.channels; ++channel)
    most = std::max(most, sorted.starts[(channel + 1) * sorted.classes] -
                              sorted.starts[channel * sorted.classes]);
  const Size slack = kConvSlack + 1;
  const Size phase = ceil_div(breadth, shape.stride[2]) + slack;
  return (2 * (pixels + slack) + 2 * shape.stride[2] * phase + most + slack) * lanes;
}

}  // namespace

template <typename T>
void run(const ConvForward<T>& product, int threads) {
  const ConvShape& shape = product.shape;
  const Size plane = pixels_of(shape.out);
  if (shape.batch == 0 || shape.n_out == 0 || plane == 0) return;
  const ConvKernels<T>& k = kernels<T>();
  const Layout layout = input_layout(shape, k.lanes * sizeof(T));
  threads = threads_for(work_of(shape, product.indptr[shape.n_out]), threads);
  const std::vector<std::int32_t> offsets =
      input_offsets(shape, layout, product.indptr, product.indices);
  const std::vector<Block> blocks = blocks_of(shape.batch, k.lanes);
  const Size widest = blocks.front().width;
  const std::vector<ConvTile> tiles = tiles_of(
      shape.out, shape.channels / shape.groups * layout.line() * widest * sizeof(T),
      shape.kernel[0] * shape.kernel[1], layout.jump[1] / layout.line() * shape.kernel[0],
      std::max<Size>(1, k.forward_run * k.lanes / widest));
  const Size group = std::min<Size>(threads, blocks.size());
  const Size scratch = (std::max(kTilePixels, shape.out[2]) + kConvSlack) * k.lanes;
  const Workspace<T> workspace(group, layout.pixels(), k.lanes, threads, scratch);
  for (Size first = 0; first < Size(blocks.size()); first += group) {
    const Size count = std::min<Size>(group, blocks.size() - first);
    pack_group(layout, product.x, &blocks[first], count, workspace, k.lanes, threads);
    const Size units = count * tiles.size();
    const Size parts = std::clamp<Size>(threads == 1 ? 1 : 4 * threads / units, 1, shape.n_out);
    parallel(units * parts, threads, [&](Size unit, int slot) {
      const Size part = unit % parts, tile = unit / parts % tiles.size();
      const Size block = unit / parts / tiles.size();
      const Block& samples = blocks[first + block];
      ConvForwardUnit<T> work{};
      work.packed = workspace.packed(block);
      work.values = product.values;
      work.indptr = product.indptr;
      work.offsets = offsets.data();
      work.bias = product.bias;
      work.sample_stride = shape.n_out * plane;
      work.y = product.y + samples.sample * work.sample_stride;
      work.scratch = workspace.scratch(slot);
      work.plane = plane;
      work.first = shape.n_out * part / parts;
      work.last = shape.n_out * (part + 1) / parts;
      work.height = shape.out[1];
      work.breadth = shape.out[2];
      std::copy(layout.jump, layout.jump + 2, work.jump);
      work.tile = tiles[tile];
      work.width = samples.width;
      work.samples = samples.samples;
      k.forward(work);
    });
  }
}

template <typename T>
void run(const ConvBackward<T>& product, int threads) {
  const ConvShape& shape = product.shape;
  const Size nnz = product.indptr[shape.n_out], plane = pixels_of(shape.in);
  if (product.dvalues) std::fill(product.dvalues, product.dvalues + nnz, T(0));
  if (shape.batch == 0 || plane == 0 || (!product.dx && !product.dvalues)) return;
  const ConvKernels<T>& k = kernels<T>();
  const Layout layout = gradient_layout(shape, k.lanes * sizeof(T));
  threads = threads_for(work_of(shape, nnz), threads);
  const ByInput<T> sorted = by_input(product, layout);
  const std::vector<Block> blocks = blocks_of(shape.batch, k.lanes);
  const Size widest = blocks.front().width;
  const auto meeting = [&](int axis) { return ceil_div(shape.kernel[axis], shape.stride[axis]); };
  const std::vector<ConvTile> tiles = tiles_of(
      shape.in, shape.n_out / shape.groups * layout.line() * widest * sizeof(T),
      meeting(0) * meeting(1), meeting(0),
      shape.stride[2] * std::max<Size>(1, k.backward_run * k.lanes / widest));
  const Size group = std::min<Size>(threads, blocks.size());
  const Workspace<T> workspace(group, layout.pixels(), k.lanes, threads,
                               backward_scratch(shape, sorted, tiles, k.lanes));
  // The sums of each block are formed in the order of its tiles and then added up in the order of
  // the blocks, whoever works on them.
  std::vector<T> sums(product.dvalues ? static_cast<std::size_t>(group * nnz) : 0);
  const Size parts = threads == 1 ? 1 : std::min<Size>(shape.channels, 2 * threads);
  for (Size first = 0; first < Size(blocks.size()); first += group) {
    const Size count = std::min<Size>(group, blocks.size() - first);
    pack_group(layout, product.grad, &blocks[first], count, workspace, k.lanes, threads);
    std::fill(sums.begin(), sums.end(), T(0));
    parallel(count * parts, threads, [&](Size unit, int slot) {
      const Size block = unit / parts, part = unit % parts;
      const Block& samples = blocks[first + block];
      ConvBackwardUnit<T> work{};
      work.packed = workspace.packed(block);
      work.sample_stride = shape.channels * plane;
      work.x = product.x + samples.sample * work.sample_stride;
      work.values = sorted.values.data();
      work.starts = sorted.starts.data();
      work.offsets = sorted.offsets.data();
      work.dx = product.dx ? product.dx + samples.sample * work.sample_stride : nullptr;
      work.dvalues = product.dvalues ? sums.data() + block * nnz : nullptr;
      work.scratch = workspace.scratch(slot);
      work.plane = plane;
      work.first = split(sorted, shape.channels, part, parts);
      work.last = split(sorted, shape.channels, part + 1, parts);
      work.height = shape.in[1];
      work.breadth = shape.in[2];
      std::copy(shape.stride, shape.stride + 3, work.stride);
      std::copy(layout.jump, layout.jump + 2, work.jump);
      work.width = samples.width;
      work.samples = samples.samples;
      for (const ConvTile& tile : tiles) {
        work.tile = tile;
        k.backward(work);
      }
    });
    for (Size block = 0; product.dvalues && block < count; ++block)
      for (Size slot = 0; slot < nnz; ++slot)
        product.dvalues[sorted.slots[slot]] += sums[block * nnz + slot];
  }
}

template void run(const ConvForward<float>&, int);
template void run(const ConvForward<double>&, int);
template void run(const ConvBackward<float>&, int);
template void run(const ConvBackward<double>&, int);

}  // namespace regrow
