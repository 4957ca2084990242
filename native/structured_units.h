// The products of weights with a structure, as the instruction-set specific kernels see them.
//
// Plain data only, for the reason that products.h gives.
#pragma once

#include <cstdint>

namespace regrow {

// Blocks of one form, compressed by block rows.  Their values are in the row order of all
// connections: the blocks of one block row lie side by side in a row-major matrix of their own.
struct Blocks {
  const std::int64_t* indptr;   // first block of every block row
  const std::int32_t* indices;  // block column of every block
  std::int64_t rows;            // of a block
  std::int64_t columns;         // of a block
};

// The same blocks by block columns; all null in a forward pass.
struct TurnedBlocks {
  const std::int64_t* indptr;
  const std::int32_t* indices;  // block row of every block
  const std::int32_t* slots;    // its place in row order
};

// One tile: y = bias + W x for the block rows [first, last), or dx = W^T dy for block columns.
template <typename T>
struct BlockUnit {
  const T* packed;  // [features, width] of this tile
  const T* values;
  Blocks blocks;
  TurnedBlocks turned;
  const T* bias;  // may be null
  T* out;         // first sample of the tile, row-major
  std::int64_t stride;
  std::int64_t first;
  std::int64_t last;
  std::int32_t width;
  std::int32_t samples;
};

// Samples side by side for some features: panels of one vector each, [features / lanes, samples,
// lanes], the last one filled up with zeros.
template <typename T>
struct PanelUnit {
  const T* source;  // first sample, [samples, features]
  T* panels;
  std::int64_t features;
  std::int64_t samples;
  std::int64_t first;  // panels [first, last) are made
  std::int64_t last;
};

// The gradient of the values of the block rows [first, last), over some samples.
template <typename T>
struct BlockValuesUnit {
  const T* grad;    // first sample, [samples, n_out]
  const T* x;       // first sample, [samples, n_in]
  const T* panels;  // the same samples of x in panels; null where blocks do not fit into vectors
  T* dvalues;
  Blocks blocks;
  std::int64_t samples;  // no more than kValueSamples
  std::int64_t n_in;
  std::int64_t n_out;
  std::int64_t first;
  std::int64_t last;
  bool add;  // to dvalues, which hold the sums of earlier samples
};

constexpr std::int64_t kValueSamples = 128;

// n connections among every m consecutive columns of a row; their values are in row order.
struct Groups {
  const std::uint8_t* places;  // of every connection, in its group
  std::int64_t n;
  std::int64_t m;
};

// Rows [first, last) of the weight, one tile: y = bias + W x.
template <typename T>
struct GroupsUnit {
  const T* packed;  // [n_in, width] of this tile
  const T* values;
  Groups groups;
  const T* bias;  // may be null
  T* y;           // first sample of the tile, row-major
  std::int64_t n_in;
  std::int64_t n_out;
  std::int64_t first;
  std::int64_t last;
  std::int32_t width;
  std::int32_t samples;
};

// Groups [first, last) of all rows, one tile: dx = W^T dy, and dW = dy x^T at the connections.
template <typename T>
struct GroupsBackwardUnit {
  const T* packed;  // output gradient, [n_out, width] of this tile
  const T* x;       // first sample of the tile, row-major
  const T* values;
  Groups groups;
  T* dx;       // like x; null if not wanted
  T* dvalues;  // null if not wanted
  T* scratch;  // 2 * kGroupColumns rows of the tile
  std::int64_t n_in;
  std::int64_t n_out;
  std::int64_t first;
  std::int64_t last;
  std::int32_t width;
  std::int32_t samples;
  bool add;  // to dvalues, which hold the sums of earlier samples
};

constexpr std::int64_t kGroupColumns = 256;  // most columns that are worked on together

template <typename T>
struct StructuredKernels {
  std::int32_t lanes;          // elements of a vector
  std::int32_t block_vectors;  // vectors in the widest tile
  std::int32_t group_vectors;
  void (*block)(const BlockUnit<T>&);
  void (*panels)(const PanelUnit<T>&);
  void (*block_values)(const BlockValuesUnit<T>&);
  void (*groups)(const GroupsUnit<T>&);
  void (*groups_backward)(const GroupsBackwardUnit<T>&);
};

struct StructuredIsa {
  StructuredKernels<float> single;
  StructuredKernels<double> wide;
};

// Widths of a tile that the kernels know: 1, 2, 4, ... below one vector, then whole vectors up to
// the widest.
extern const StructuredIsa structured_portable;
#if defined(REGROW_X86)
extern const StructuredIsa structured_avx2;
extern const StructuredIsa structured_avx512;
#endif

}  // namespace regrow
