// The products of a sparse layer, as the instruction-set specific kernels and their driver see them.
//
// This header is included by translation units that are compiled for AVX2 or AVX-512.  It must hold
// plain data only: an inline function here could be emitted with AVX-512 instructions and then be
// linked in for every processor.
#pragma once

#include <cstdint>

namespace regrow {

// A number of bfloat16: the upper half of a float.
struct BFloat16 {
  std::uint16_t bits;
};

// Types of a product: it is computed in T, and activations and their gradients are stored and packed
// as A.  Values, biases and their gradients are always T.

// A batch is worked on in tiles of `width` columns (samples); the last one is `last` wide, padded
// with zeros.  Tile t starts at sample t * width, and its packed operand at t * width * features.
struct Tiles {
  std::int64_t batch;
  std::int64_t count;
  std::int32_t width;
  std::int32_t last;
};

// Activations and their gradients lie in the memory row-major, a sample after the other, or
// feature-major, where a pitch says how far a feature is from the next; it is 0 for row-major ones.

// Rows [first, last) of the weight, one tile: y = bias + W x, or the positive part of that.
template <typename T, typename A = T>
struct ForwardUnit {
  const A* packed;  // [n_in, width] of this tile
  const T* values;
  const std::int64_t* indptr;
  const std::int32_t* indices;
  const T* bias;  // may be null
  A* y;           // first sample of the tile
  std::int64_t y_pitch;
  std::int64_t n_out;
  std::int64_t first;
  std::int64_t last;
  std::int32_t width;
  std::int32_t samples;
  bool rectified;
};

// Columns [first, last) of the weight, one tile: dx = W^T dy and dW = dy x^T at the connections.
template <typename T, typename A = T>
struct BackwardUnit {
  const A* packed;  // [n_out, width] of this tile
  const A* x;       // first sample of the tile
  const T* values;
  const std::int64_t* t_indptr;
  const std::int32_t* t_indices;
  const std::int32_t* t_perm;  // null if values and dvalues are in column order
  A* dx;                       // like x; null if not wanted
  T* dvalues;                  // written, or in column order added to; null if not wanted
  std::int64_t x_pitch;        // of x and dx
  std::int64_t n_in;
  std::int64_t first;
  std::int64_t last;
  std::int32_t width;
  std::int32_t samples;
  bool far;  // values and dvalues are too large for the second-level cache
};

// Connections of some rows, or in columns [first, last) of the weight, in row order, one narrow tile:
// dx = W^T dy and dW = dy x^T at the connections.  Where both are wanted, dx follows x in one array
// [n_in, 2, width], so that a connection meets one place of the memory and not two.
template <typename T>
struct RowsUnit {
  const T* grad;  // packed, [n_out, width]
  const T* x;     // packed, [n_in, width] or as said above; null if dvalues are not wanted
  const T* values;
  const std::int64_t* indptr;
  const std::int32_t* indices;
  T* dx;       // packed like x, zero at first; null if not wanted
  T* dvalues;  // null if not wanted
  std::int64_t n_in;
  std::int64_t n_out;
  std::int64_t first_row;
  std::int64_t last_row;
  std::int64_t first;
  std::int64_t last;
  std::int32_t width;
};

// Features [first, last) of one tile, turned from feature-major into row-major.
template <typename T>
struct UnpackUnit {
  const T* packed;  // [features, width]
  T* target;        // first sample of the tile, row-major
  std::int64_t features;
  std::int64_t first;
  std::int64_t last;
  std::int32_t width;
  std::int32_t samples;
};

// Positions [first, last), one tile: products += sum over the samples of grad[row] * x[column].
template <typename T>
struct PairsUnit {
  const T* packed_grad;  // [n_out, width] of this tile
  const T* packed_x;     // [n_in, width] of this tile
  const std::int64_t* rows;
  const std::int64_t* columns;
  T* products;
  std::int64_t first;
  std::int64_t last;
  std::int32_t width;
};

// Features [first, last) of one tile, brought side by side.  Where there is a gate, zeros stand for
// what meets a number of it that is not positive.
template <typename T, typename A = T>
struct PackUnit {
  const A* source;  // first sample of the tile
  A* packed;        // [features, width]
  std::int64_t features;
  std::int64_t first;
  std::int64_t last;
  std::int32_t width;
  std::int32_t samples;
  const A* gate = nullptr;  // like source, but feature-major if that is
  std::int64_t pitch = 0;
  std::int64_t gate_pitch = 0;
};

// Features [first, last) of one packed tile, each summed over its samples.
template <typename T, typename A = T>
struct SumUnit {
  const A* packed;  // [features, width]
  T* sums;          // [features], added to
  std::int64_t first;
  std::int64_t last;
  std::int32_t width;
};

// Rows [first, last) between values and their dense form.  `bits` has a word for each 16 columns of a
// row; bits beyond the last column are zero.
template <typename T>
struct BitsUnit {
  const T* values;  // from the first row on; null for compress
  T* target;        // likewise; null for expand
  std::int64_t count;  // of the values of these rows
  const std::uint16_t* bits;
  T* dense;
  std::int64_t columns;
  std::int64_t first;
  std::int64_t last;
};

template <typename T, typename A = T>
struct ProductKernels {
  std::int32_t least;    // samples of the narrowest tile
  std::int32_t lanes;    // samples whose packed numbers make a vector
  std::int32_t vectors;  // of packed numbers, in the widest tile
  void (*pack)(const PackUnit<T, A>&);
  void (*sum)(const SumUnit<T, A>&);
  void (*forward)(const ForwardUnit<T, A>&);
  void (*backward)(const BackwardUnit<T, A>&);
};

template <typename T>
struct Kernels : ProductKernels<T> {
  void (*backward_rows)(const RowsUnit<T>&);
  void (*unpack)(const UnpackUnit<T>&);
  void (*pairs)(const PairsUnit<T>&);
  void (*expand)(const BitsUnit<T>&);
  void (*compress)(const BitsUnit<T>&);
  void (*above)(const T* scores, std::int64_t count, T bar, std::uint16_t* bits);
};

struct Isa {
  const char* name;
  Kernels<float> single;
  Kernels<double> wide;
  ProductKernels<float, BFloat16> low;
};

// Tile widths that the kernels know: 1, 2, 4, ... below one vector, where these are not less than
// `least`, then 1, 2, 3, 4 and 8 vectors.
extern const Isa isa_portable;
#if defined(REGROW_X86)
extern const Isa isa_avx2;
extern const Isa isa_avx512;
#endif

}  // namespace regrow
