// The products of a weight with n connections among every m consecutive columns of a row.
//
// Activations and their gradients are row-major and contiguous.  Sizes and pointers are taken as
// checked, and so are the places; see check_places().
#pragma once

#include <cstdint>

#include "structured_units.h"

namespace regrow {

template <typename T>
struct GroupsForward {
  const T* x;  // [batch, n_in], n_in a multiple of m
  const T* values;
  Groups groups;
  const T* bias;  // may be null
  T* y;           // [batch, n_out]
  std::int64_t batch, n_in, n_out;
};

template <typename T>
struct GroupsBackward {
  const T* grad;  // [batch, n_out]
  const T* x;     // [batch, n_in]
  const T* values;
  Groups groups;
  T* dx;       // null if not wanted
  T* dvalues;  // null if not wanted
  std::int64_t batch, n_in, n_out;
};

// The results do not depend on the number of threads, bit for bit.
template <typename T>
void run(const GroupsForward<T>& product, int threads);
template <typename T>
void run(const GroupsBackward<T>& product, int threads);

// Throws std::invalid_argument naming the first place that is not in [0, m).
void check_places(const Groups& groups, std::int64_t nnz);

}  // namespace regrow
