// The products of a sparse convolution: packing, tiles and threads around the kernels.
//
// Operands are contiguous, [batch, channels, depth, height, breadth]; of one and two dimensions the
// leading axes are 1.  Sizes, pointers and structure are taken as checked.
#pragma once

#include <cstdint>

namespace regrow {

struct ConvShape {
  std::int64_t batch, channels, n_out, groups;
  std::int64_t in[3], out[3];
  std::int64_t kernel[3], stride[3], dilation[3];
  std::int64_t padding[3];  // before the first pixel; what is behind the last follows from `out`
};

template <typename T>
struct ConvForward {
  const T* x;
  const T* values;
  const std::int64_t* indptr;   // [n_out + 1]
  const std::int32_t* indices;  // columns: channel of the group, then place in the kernel
  const T* bias;                // may be null
  T* y;
  ConvShape shape;
};

template <typename T>
struct ConvBackward {
  const T* grad;
  const T* x;
  const T* values;
  const std::int64_t* indptr;
  const std::int32_t* indices;
  T* dx;       // null if not wanted
  T* dvalues;  // null if not wanted
  ConvShape shape;
};

// Throws std::invalid_argument if one block of packed samples has more pixels than an offset can
// name.  The results do not depend on the number of threads, bit for bit.
template <typename T>
void run(const ConvForward<T>& product, int threads);
template <typename T>
void run(const ConvBackward<T>& product, int threads);

}  // namespace regrow
