// From one topology to the next: one merge of what is kept with what is grown.
#pragma once

#include <cstdint>

namespace regrow {

// A matrix whose connections are listed row by row, columns rising within each.
struct Rows {
  const std::int64_t* indptr;
  const std::int32_t* indices;
  std::int64_t rows, columns;
};

// Replaces rising ranks by the positions without a connection that have these ranks.
void free_positions(const Rows& taken, std::int64_t* ranks, std::int64_t count);

// The new pointers, the new columns, and a mark on each that is grown.
struct Rewired {
  std::int64_t* indptr;
  std::int32_t* indices;
  std::uint8_t* fresh;
};

// Returns -1, or the first grown position that is there already; `grown` must not fall.
std::int64_t rewire(const Rows& old, const std::uint8_t* keep, std::int64_t kept,
                    const std::int64_t* grown, std::int64_t count, const Rewired& made);

// Copies the entries that are kept, in order; there are `kept` of them.
template <typename Word>
void compress(const Word* entries, const std::uint8_t* keep, std::int64_t size, std::int64_t kept,
              Word* out);

// One entry per new connection: the start of the next grown one where `fresh`, else the next kept.
// `order` says which start belongs to each grown one; without it they are in order.
template <typename Word>
void carry(const Word* old, const std::uint8_t* keep, std::int64_t old_size, const Word* start,
           const std::int64_t* order, std::int64_t grown, const std::uint8_t* fresh,
           std::int64_t new_size, Word* made);

}  // namespace regrow
