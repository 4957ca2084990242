// Where the pixels of a convolution lie once they are packed, and how its work is cut.
#pragma once

#include <cstdint>
#include <vector>

#include "convolution.h"
#include "convolution_units.h"

namespace regrow {

// How an operand is laid out for one block; see ConvPackUnit.
struct Layout {
  std::int64_t channels;
  std::int64_t size[3], room[3], step[3], margin[3];
  std::int64_t phases;
  std::int64_t plane;  // pixels from one channel to the next
  std::int64_t jump[2];

  std::int64_t line() const { return phases * room[2]; }
  std::int64_t pixels() const { return channels * plane; }
};

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline std::int64_t pixels_of(const std::int64_t* size) { return size[0] * size[1] * size[2]; }

// With pixels of so many bytes in a full block.  Both throw std::invalid_argument if a sample has
// more padded pixels than an offset can name.
Layout input_layout(const ConvShape& shape, std::int64_t pixel_bytes);
Layout gradient_layout(const ConvShape& shape, std::int64_t pixel_bytes);

// For every connection, row by row: from a pixel of the output to the one of the packed input.
std::vector<std::int32_t> input_offsets(const ConvShape& shape, const Layout& layout,
                                        const std::int64_t* indptr, const std::int32_t* indices);

struct Place {
  std::int64_t key;     // channel and class
  std::int64_t offset;
};

// For every column of the first group: its place in the order of ConvBackwardUnit, and the way from
// a pixel of the input to the one of the packed gradient of channel 0.
std::vector<Place> gradient_places(const ConvShape& shape, const Layout& layout);

// Most pixels of a tile of several lines: its part of one channel stays in the first-level cache.
constexpr std::int64_t kTilePixels = 256;

// Cuts the lines of an image, so that what a tile looks at stays in the second-level cache.  In all
// channels together a packed line has `line_bytes`; `lines` of them meet in one line of the image,
// and `jump` further ones in each that follows.  A line is cut at multiples of `unit` pixels.
std::vector<ConvTile> tiles_of(const std::int64_t* size, std::int64_t line_bytes,
                               std::int64_t lines, std::int64_t jump, std::int64_t unit);

}  // namespace regrow
