// The products of a weight that consists of blocks: tiles, threads and scratch memory.
//
// Activations and their gradients are row-major and contiguous.  Sizes and pointers are taken as
// checked, and so are the blocks; see check_blocks().
#pragma once

#include <cstdint>

#include "structured_units.h"

namespace regrow {

// Sizes of a product; nnz is blocks * rows * columns of a block.
struct BlockShape {
  std::int64_t batch, n_in, n_out, blocks;
};

template <typename T>
struct BlockForward {
  const T* x;  // [batch, n_in]
  const T* values;
  Blocks blocks;
  const T* bias;  // may be null
  T* y;           // [batch, n_out]
  BlockShape shape;
};

template <typename T>
struct BlockBackward {
  const T* grad;  // [batch, n_out]
  const T* x;     // [batch, n_in]
  const T* values;
  Blocks blocks;
  TurnedBlocks turned;
  T* dx;       // null if not wanted
  T* dvalues;  // null if not wanted
  BlockShape shape;
};

// The results do not depend on the number of threads, bit for bit.
template <typename T>
void run(const BlockForward<T>& product, int threads);
template <typename T>
void run(const BlockBackward<T>& product, int threads);

// Throws std::invalid_argument naming the first place where the arrays are not blocks in row order.
void check_blocks(const Blocks& blocks, const BlockShape& shape);

// Likewise where they are not the same blocks in column order.
void check_turned(const Blocks& blocks, const TurnedBlocks& turned, const BlockShape& shape);

}  // namespace regrow
