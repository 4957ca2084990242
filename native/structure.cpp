#include "structure.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "isa.h"
#include "pool.h"

namespace regrow {
namespace {

// Below this many elements a second thread costs more than it brings.
constexpr std::int64_t kElementsPerUnit = 1 << 16;

// Splits the rows in units of about equal work and runs `body(first_row, last_row)` on each.
template <typename F>
void for_rows(std::int64_t rows, std::int64_t elements, int threads, F&& body) {
  const std::int64_t units =
      std::clamp<std::int64_t>(elements / kElementsPerUnit, 1, std::max<std::int64_t>(1, rows));
  parallel(units, threads, [&](std::int64_t unit, int) {
    body(rows * unit / units, rows * (unit + 1) / units);
  });
}

[[noreturn]] void fail(const std::string& message) { throw std::invalid_argument(message); }

[[noreturn]] void name_bad_index(const std::int32_t* indices, std::int64_t first,
                                 std::int64_t last, std::int64_t row, std::int64_t columns) {
  for (std::int64_t k = first; k < last; ++k) {
    const std::string place = "indices[" + std::to_string(k) + "] of row " + std::to_string(row);
    if (indices[k] < 0 || indices[k] >= columns)
      fail(place + " must be in [0, " + std::to_string(columns) + "), got " +
           std::to_string(indices[k]));
    if (k > first && indices[k] <= indices[k - 1])
      fail(place + " must be above the one before it, " + std::to_string(indices[k - 1]) +
           ", got " + std::to_string(indices[k]));
  }
  fail("indices changed while they were checked");
}

}  // namespace

void transpose(const std::int64_t* indptr, const std::int32_t* indices, std::int64_t rows,
               std::int64_t columns, std::int64_t* t_indptr, std::int32_t* t_indices,
               std::int32_t* t_perm) {
  const std::int64_t nnz = indptr[rows];
  std::fill(t_indptr, t_indptr + columns + 1, 0);
  for (std::int64_t k = 0; k < nnz; ++k) ++t_indptr[indices[k] + 1];
  for (std::int64_t c = 0; c < columns; ++c) t_indptr[c + 1] += t_indptr[c];
  // Each start moves to the end of its column, which is the start of the next: shifted back below.
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t k = indptr[row]; k < indptr[row + 1]; ++k) {
      const std::int64_t slot = t_indptr[indices[k]]++;
      t_indices[slot] = static_cast<std::int32_t>(row);
      t_perm[slot] = static_cast<std::int32_t>(k);
    }
  }
  std::copy_backward(t_indptr, t_indptr + columns, t_indptr + columns + 1);
  t_indptr[0] = 0;
}

template <typename Word>
void scatter(const Word* values, const std::int64_t* indptr, const std::int32_t* indices,
             std::int64_t rows, std::int64_t columns, Word* dense, int threads) {
  for_rows(rows, rows * columns, threads, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      Word* const target = dense + row * columns;
      std::fill(target, target + columns, Word{0});
      for (std::int64_t k = indptr[row]; k < indptr[row + 1]; ++k) target[indices[k]] = values[k];
    }
  });
}

template <typename Word>
void gather(const Word* dense, const std::int64_t* indptr, const std::int32_t* indices,
            std::int64_t rows, std::int64_t columns, Word* values, int threads) {
  for_rows(rows, indptr[rows] - indptr[0], threads, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      const Word* const source = dense + row * columns;
      for (std::int64_t k = indptr[row]; k < indptr[row + 1]; ++k) values[k] = source[indices[k]];
    }
  });
}

template void scatter(const std::uint32_t*, const std::int64_t*, const std::int32_t*, std::int64_t,
                      std::int64_t, std::uint32_t*, int);
template void scatter(const std::uint64_t*, const std::int64_t*, const std::int32_t*, std::int64_t,
                      std::int64_t, std::uint64_t*, int);
template void gather(const std::uint32_t*, const std::int64_t*, const std::int32_t*, std::int64_t,
                     std::int64_t, std::uint32_t*, int);
template void gather(const std::uint64_t*, const std::int64_t*, const std::int32_t*, std::int64_t,
                     std::int64_t, std::uint64_t*, int);

void mark(const std::int64_t* indptr, const std::int32_t* indices, std::int64_t rows,
          std::int64_t columns, std::uint16_t* bits, int threads) {
  const std::int64_t words = bit_words(columns);
  for_rows(rows, rows * columns, threads, [=](std::int64_t first, std::int64_t last) {
    std::fill(bits + first * words, bits + last * words, std::uint16_t{0});
    for (std::int64_t row = first; row < last; ++row)
      for (std::int64_t k = indptr[row]; k < indptr[row + 1]; ++k)
        bits[row * words + indices[k] / 16] |= static_cast<std::uint16_t>(1u << indices[k] % 16);
  });
}

template <typename T>
void expand(const T* values, const std::int64_t* indptr, const std::uint16_t* bits,
            std::int64_t rows, std::int64_t columns, T* dense, int threads) {
  const auto kernel = product_kernels<T>().expand;
  for_rows(rows, rows * columns, threads, [=](std::int64_t first, std::int64_t last) {
    kernel({values + indptr[first], nullptr, indptr[last] - indptr[first], bits, dense, columns,
            first, last});
  });
}

template <typename T>
void compress(const T* dense, const std::int64_t* indptr, const std::uint16_t* bits,
              std::int64_t rows, std::int64_t columns, T* values, int threads) {
  const auto kernel = product_kernels<T>().compress;
  for_rows(rows, rows * columns, threads, [=](std::int64_t first, std::int64_t last) {
    kernel({nullptr, values + indptr[first], indptr[last] - indptr[first], bits,
            const_cast<T*>(dense), columns, first, last});
  });
}

#define REGROW_INSTANTIATE(T)                                                                    \
  template void expand(const T*, const std::int64_t*, const std::uint16_t*, std::int64_t,        \
                       std::int64_t, T*, int);                                                   \
  template void compress(const T*, const std::int64_t*, const std::uint16_t*, std::int64_t,      \
                         std::int64_t, T*, int);
REGROW_INSTANTIATE(float)
REGROW_INSTANTIATE(double)
#undef REGROW_INSTANTIATE

void check_structure(const std::int64_t* indptr, const std::int32_t* indices, std::int64_t rows,
                     std::int64_t columns, std::int64_t nnz) {
  if (indptr[0] != 0) fail("indptr[0] must be 0, got " + std::to_string(indptr[0]));
  for (std::int64_t row = 0; row < rows; ++row) {
    if (indptr[row + 1] < indptr[row])
      fail("indptr[" + std::to_string(row + 1) + "] must not be below the one before it, " +
           std::to_string(indptr[row]) + ", got " + std::to_string(indptr[row + 1]));
  }
  if (indptr[rows] != nnz)
    fail("indptr[" + std::to_string(rows) + "] must be the number of indices, " +
         std::to_string(nnz) + ", got " + std::to_string(indptr[rows]));
  const std::uint32_t limit = static_cast<std::uint32_t>(columns);
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t first = indptr[row], last = indptr[row + 1];
    if (first == last) continue;
    bool bad = static_cast<std::uint32_t>(indices[first]) >= limit;
    for (std::int64_t k = first + 1; k < last; ++k)
      bad |= (static_cast<std::uint32_t>(indices[k]) >= limit) | (indices[k] <= indices[k - 1]);
    if (bad) name_bad_index(indices, first, last, row, columns);
  }
}

}  // namespace regrow
