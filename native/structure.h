// What depends on where the connections are, not on activations.
#pragma once

#include <cstdint>

namespace regrow {

// Lists the connections column by column: counting sort, rows rising within a column.
void transpose(const std::int64_t* indptr, const std::int32_t* indices, std::int64_t rows,
               std::int64_t columns, std::int64_t* t_indptr, std::int32_t* t_indices,
               std::int32_t* t_perm, int threads);

// What follows works on a strip of rows as well: `indptr` then begins at the first of them, while
// values and indices are those of the whole weight.

// dense[row, indices[k]] = values[k], zero elsewhere.  Word is the unsigned integer of that size.
template <typename Word>
void scatter(const Word* values, const std::int64_t* indptr, const std::int32_t* indices,
             std::int64_t rows, std::int64_t columns, Word* dense, int threads);

// values[k] = dense[row, indices[k]]
template <typename Word>
void gather(const Word* dense, const std::int64_t* indptr, const std::int32_t* indices,
            std::int64_t rows, std::int64_t columns, Word* values, int threads);

// Words of 16 bits that a row of so many columns takes.
constexpr std::int64_t bit_words(std::int64_t columns) { return (columns + 15) / 16; }

// Bit c % 16 of bits[row, c / 16] tells whether the row has a connection to column c.
void mark(const std::int64_t* indptr, const std::int32_t* indices, std::int64_t rows,
          std::int64_t columns, std::uint16_t* bits, int threads);

// As scatter, led by the bits of the rows.
template <typename T>
void expand(const T* values, const std::int64_t* indptr, const std::uint16_t* bits,
            std::int64_t rows, std::int64_t columns, T* dense, int threads);

// As gather, led by the bits of the rows.
template <typename T>
void compress(const T* dense, const std::int64_t* indptr, const std::uint16_t* bits,
              std::int64_t rows, std::int64_t columns, T* values, int threads);

// Throws std::invalid_argument naming the first place where the arrays are not a sparse structure:
// indptr from 0 to nnz and never falling, indices in [0, columns) and rising within each row.
void check_structure(const std::int64_t* indptr, const std::int32_t* indices, std::int64_t rows,
                     std::int64_t columns, std::int64_t nnz);

}  // namespace regrow
