// Distinct positions drawn uniformly at random, in order, in O(count) time and O(1) memory each.
#pragma once

#include <cstdint>

namespace regrow {

// Draws `count` distinct numbers of [0, total), rising, into `numbers`.
void sample(std::int64_t total, std::int64_t count, std::uint64_t seed, std::int64_t* numbers,
            int threads);

// Draws `count` distinct positions of a matrix: pointers of rows + 1 entries, columns of `count`.
void sample_matrix(std::int64_t rows, std::int64_t columns, std::int64_t count, std::uint64_t seed,
                   std::int64_t* indptr, std::int32_t* indices, int threads);

}  // namespace regrow
