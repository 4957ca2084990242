// The products of a sparse convolution, as the instruction-set specific kernels see them.
//
// Plain data only, for the reason that products.h gives.
#pragma once

#include <cstdint>

namespace regrow {

// A batch is worked on in blocks of `width` samples, which lie side by side in a packed operand:
// what is one number in memory is there a short row, called a pixel.  All offsets are in pixels.

// Channels [first, last) of one block, packed with their margins of zeros.
//
// Packed row r of an axis is source row r * step - margin.  The pixels of a line are split by their
// phase: the one at (phase, j) is source pixel j * step + phase - margin.
template <typename T>
struct ConvPackUnit {
  const T* source;  // first sample, [channels, size...]
  T* packed;        // [channels, plane, width], a plane being [room[0], room[1], phases, room[2]]
  std::int64_t sample_stride;
  std::int64_t first;
  std::int64_t last;
  std::int64_t size[3];
  std::int64_t room[3];
  std::int64_t step[3];
  std::int64_t margin[3];
  std::int64_t phases;
  std::int64_t plane;  // pixels from one channel to the next
  std::int32_t width;
  std::int32_t samples;
};

// A part of the pixels of every channel: some whole lines, or a part of one line.
struct ConvTile {
  std::int64_t line;
  std::int64_t lines;
  std::int64_t pixel;
  std::int64_t pixels;
};

// Rows [first, last) of the weight, one tile of one block: y = bias + W * x.
template <typename T>
struct ConvForwardUnit {
  const T* packed;
  const T* values;
  const std::int64_t* indptr;
  const std::int32_t* offsets;  // of every connection, into the packed input
  const T* bias;                // may be null
  T* y;                         // first sample, [n_out, plane]
  T* scratch;                   // one tile and kConvSlack vectors
  std::int64_t sample_stride;
  std::int64_t plane;
  std::int64_t first;
  std::int64_t last;
  std::int64_t height;   // lines of an output image
  std::int64_t breadth;  // pixels of an output line
  std::int64_t jump[2];  // from one output image, and one output line, to the next
  ConvTile tile;
  std::int32_t width;
  std::int32_t samples;
};

// Input channels [first, last), one tile of one block: the gradients of input and values.
//
// Connections are ordered by input channel and then by class: those that reach the same places of
// the input modulo the stride.
template <typename T>
struct ConvBackwardUnit {
  const T* packed;  // output gradient
  const T* x;       // first sample, [channels, plane]
  const T* values;
  const std::int64_t* starts;   // of every channel and class
  const std::int32_t* offsets;  // of every connection, into the packed gradient
  T* dx;                        // like x; null if not wanted
  T* dvalues;                   // sums of the block so far; null if not wanted
  T* scratch;                   // conv_backward_scratch() elements
  std::int64_t sample_stride;
  std::int64_t plane;
  std::int64_t first;
  std::int64_t last;
  std::int64_t height;
  std::int64_t breadth;
  std::int64_t stride[3];
  std::int64_t jump[2];
  ConvTile tile;
  std::int32_t width;
  std::int32_t samples;
};

// Vectors that a kernel may read or write beyond the end of a packed operand or of scratch memory.
constexpr int kConvSlack = 16;

template <typename T>
struct ConvKernels {
  std::int32_t lanes;          // elements of a vector, the width of a full block
  std::int32_t forward_run;    // most vectors that are worked on at a time
  std::int32_t backward_run;
  void (*pack)(const ConvPackUnit<T>&);
  void (*forward)(const ConvForwardUnit<T>&);
  void (*backward)(const ConvBackwardUnit<T>&);
};

struct ConvIsa {
  ConvKernels<float> single;
  ConvKernels<double> wide;
};

extern const ConvIsa conv_portable;
#if defined(REGROW_X86)
extern const ConvIsa conv_avx2;
extern const ConvIsa conv_avx512;
#endif

}  // namespace regrow
