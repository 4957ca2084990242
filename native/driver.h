// The products of a sparse layer: tiles, threads and scratch memory around the kernels.
//
// It is computed in T; activations and their gradients are stored as A, values and biases as T.
// Activations and their gradients are contiguous, row-major or feature-major; the latter are of type
// T, of more samples than a vector has, a multiple of these, and aligned as vectors are.  Sizes and
// pointers are taken as checked, and so is the structure: indices in range, t_perm a permutation.
#pragma once

#include <cstdint>

namespace regrow {

template <typename T, typename A = T>
struct Forward {
  const A* x;  // [batch, n_in]
  const T* values;
  const std::int64_t* indptr;
  const std::int32_t* indices;
  const T* bias;  // may be null
  A* y;           // [batch, n_out]
  std::int64_t batch, n_in, n_out, nnz;
  bool rectified;  // y is the positive part of the product
  bool x_by_features = false;  // x is feature-major
  bool y_by_features = false;  // y is
};

template <typename T, typename A = T>
struct Backward {
  const A* grad;  // [batch, n_out]
  const A* y;     // [batch, n_out], of a rectified product; else null
  const A* x;     // [batch, n_in]
  const T* values;
  const std::int64_t* indptr;  // the row order, by which few samples are faster
  const std::int32_t* indices;
  const std::int64_t* t_indptr;
  const std::int32_t* t_indices;
  const std::int32_t* t_perm;
  A* dx;       // [batch, n_in], null if not wanted
  T* dvalues;  // [nnz], null if not wanted
  T* dbias;    // [n_out], null if not wanted; only beside one of the two
  std::int64_t batch, n_in, n_out, nnz;
  bool x_by_features = false;     // x and dx are feature-major
  bool grad_by_features = false;  // grad is
  bool y_by_features = false;     // y is; it must be if grad is
};

template <typename T>
struct Pairs {
  const T* grad;  // [batch, n_out]
  const T* x;     // [batch, n_in]
  const std::int64_t* rows;
  const std::int64_t* columns;
  T* products;  // [count]
  std::int64_t batch, n_in, n_out, count;
};

// The results do not depend on the number of threads, bit for bit.
template <typename T, typename A>
void run(const Forward<T, A>& product, int threads);
template <typename T, typename A>
void run(const Backward<T, A>& product, int threads);
template <typename T>
void run(const Pairs<T>& product, int threads);

}  // namespace regrow
