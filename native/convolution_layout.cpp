#include "convolution_layout.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "scratch.h"

namespace regrow {
namespace {

using Size = std::int64_t;

Size floor_mod(Size a, Size b) { return (a % b + b) % b; }

void check_pixels(double pixels) {
  const Size most = std::numeric_limits<std::int32_t>::max();
  if (pixels > most)
    throw std::invalid_argument("a sample of a sparse convolution must have at most " +
                                std::to_string(most) + " padded pixels, got " +
                                (pixels < 9e18 ? std::to_string(Size(pixels)) : "more than 9e18"));
}

// Sets where the channels lie, an odd number of cache lines apart: planes of a power of two would
// share a few sets of the cache.
void set_plane(Layout& layout, Size pixel_bytes) {
  check_pixels(1.0 * layout.channels * layout.room[0] * layout.room[1] * layout.phases *
               layout.room[2]);
  const Size step = std::max<Size>(1, 64 / pixel_bytes);
  const Size lines = ceil_div(layout.room[0] * layout.room[1] * layout.line(), step);
  layout.plane = (lines + 1 - lines % 2) * step;
  check_pixels(1.0 * layout.channels * layout.plane);
}

}  // namespace

Layout input_layout(const ConvShape& shape, Size pixel_bytes) {
  Layout layout{};
  layout.channels = shape.channels;
  Size jump[3];
  for (int axis = 0; axis < 3; ++axis) {
    const Size stride = shape.stride[axis], reach = (shape.kernel[axis] - 1) * shape.dilation[axis];
    // Where every place of the kernel sees the same pixels modulo the stride, others are left out.
    const bool alike = shape.kernel[axis] == 1 || shape.dilation[axis] % stride == 0;
    layout.size[axis] = shape.in[axis];
    layout.margin[axis] = shape.padding[axis];
    layout.step[axis] = alike || axis == 2 ? stride : 1;
    jump[axis] = stride / layout.step[axis];
    layout.room[axis] = jump[axis] * (shape.out[axis] - 1) + reach / layout.step[axis] + 1;
    if (axis == 2) layout.phases = alike ? 1 : stride;
  }
  layout.jump[1] = jump[1] * layout.line();
  layout.jump[0] = jump[0] * layout.room[1] * layout.line();
  set_plane(layout, pixel_bytes);
  return layout;
}

std::vector<std::int32_t> input_offsets(const ConvShape& shape, const Layout& layout,
                                        const std::int64_t* indptr, const std::int32_t* indices) {
  std::vector<Size> places;
  for (Size channel = 0; channel < shape.channels / shape.groups; ++channel)
    for (Size d = 0; d < shape.kernel[0]; ++d)
      for (Size h = 0; h < shape.kernel[1]; ++h)
        for (Size w = 0; w < shape.kernel[2]; ++w) {
          const Size line = d * shape.dilation[0] / layout.step[0] * layout.room[1] +
                            h * shape.dilation[1] / layout.step[1];
          const Size pixel = w * shape.dilation[2];
          places.push_back(channel * layout.plane + line * layout.line() +
                           pixel % layout.step[2] * layout.room[2] + pixel / layout.step[2]);
        }
  const Size group_rows = shape.n_out / shape.groups;
  const Size group_pixels = shape.channels / shape.groups * layout.plane;
  std::vector<std::int32_t> offsets(static_cast<std::size_t>(indptr[shape.n_out]));
  for (Size row = 0; row < shape.n_out; ++row)
    for (Size k = indptr[row]; k < indptr[row + 1]; ++k)
      offsets[k] = static_cast<std::int32_t>(row / group_rows * group_pixels + places[indices[k]]);
  return offsets;
}

Layout gradient_layout(const ConvShape& shape, Size pixel_bytes) {
  Layout layout{};
  layout.channels = shape.n_out;
  layout.phases = 1;
  for (int axis = 0; axis < 3; ++axis) {
    const Size stride = shape.stride[axis], reach = (shape.kernel[axis] - 1) * shape.dilation[axis];
    // Input pixel j * stride + phase meets output pixel j + (phase + padding - place) / stride.
    const Size before = ceil_div(std::max<Size>(0, reach - shape.padding[axis]), stride);
    const Size behind = (stride - 1 + shape.padding[axis]) / stride;
    layout.size[axis] = shape.out[axis];
    layout.margin[axis] = before;
    layout.step[axis] = 1;
    layout.room[axis] = before + ceil_div(shape.in[axis], stride) + behind;
  }
  layout.jump[1] = layout.line();
  layout.jump[0] = layout.room[1] * layout.line();
  set_plane(layout, pixel_bytes);
  return layout;
}

std::vector<Place> gradient_places(const ConvShape& shape, const Layout& layout) {
  const Size classes = pixels_of(shape.stride);
  const auto phase = [&](int axis, Size place) {
    return floor_mod(place * shape.dilation[axis] - shape.padding[axis], shape.stride[axis]);
  };
  const auto shift = [&](int axis, Size place) {
    const Size distance =
        phase(axis, place) + shape.padding[axis] - place * shape.dilation[axis];
    return layout.margin[axis] + distance / shape.stride[axis];
  };
  std::vector<Place> places;
  for (Size channel = 0; channel < shape.channels / shape.groups; ++channel)
    for (Size d = 0; d < shape.kernel[0]; ++d)
      for (Size h = 0; h < shape.kernel[1]; ++h)
        for (Size w = 0; w < shape.kernel[2]; ++w)
          places.push_back({channel * classes +
                                (phase(0, d) * shape.stride[1] + phase(1, h)) * shape.stride[2] +
                                phase(2, w),
                            (shift(0, d) * layout.room[1] + shift(1, h)) * layout.line() +
                                shift(2, w)});
  return places;
}

std::vector<ConvTile> tiles_of(const Size* size, Size line_bytes, Size lines, Size jump,
                               Size unit) {
  const Size budget = level2_bytes() * 5 / 8, count = size[0] * size[1], breadth = size[2];
  Size together = 1;
  while (together < count && (together + 1) * breadth <= kTilePixels &&
         (lines + together * jump) * line_bytes <= budget)
    ++together;
  Size pieces = 1;
  if (together == 1)
    pieces = std::clamp<Size>(std::max(lines * line_bytes / budget, breadth / kTilePixels), 1,
                              ceil_div(breadth, unit));
  const Size step = ceil_div(ceil_div(breadth, pieces), unit) * unit;
  std::vector<ConvTile> tiles;
  for (Size line = 0; line < count; line += together)
    for (Size pixel = 0; pixel < breadth; pixel += step)
      tiles.push_back({line, std::min(together, count - line), pixel,
                       pieces == 1 ? breadth : std::min(step, breadth - pixel)});
  return tiles;
}

}  // namespace regrow
