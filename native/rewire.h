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

// Whether the numbers never fall.
bool rises(const std::int64_t* numbers, std::int64_t count, int threads);

// How many flags are set.
std::int64_t count_set(const std::uint8_t* flags, std::int64_t size);

// Replaces rising ranks by the positions without a connection that have these ranks.
void free_positions(const Rows& taken, std::int64_t* ranks, std::int64_t count, int threads);

// The new pointers, the new columns, and the origin of each: the connection before that it was, or -1
// less the place of a grown one among these.
struct Rewired {
  std::int64_t* indptr;
  std::int32_t* indices;
  std::int32_t* origin;
};

// Returns -1, or the first grown position that is there already; `grown` must not fall.  There must
// be `kept` flags in `keep`, or std::invalid_argument is thrown before anything is written.
std::int64_t rewire(const Rows& old, const std::uint8_t* keep, std::int64_t kept,
                    const std::int64_t* grown, std::int64_t count, const Rewired& made,
                    int threads);

// The pointers of the rows when only what is kept is left.
void keep_pointers(const std::int64_t* old, std::int64_t rows, const std::uint8_t* keep,
                   std::int64_t* indptr, int threads);

// Copies the entries that are kept, in order; there must be `kept` of them, as above.
template <typename Word>
void compress(const Word* entries, const std::uint8_t* keep, std::int64_t size, std::int64_t kept,
              Word* out, int threads);

// One entry per new connection, by its origin: that of the connection before, or the start of the
// grown one, `step` being 1, or 0 where all start alike.  Returns false, the rest being made, if an
// origin is of neither.
template <typename Word>
bool carry(const Word* old, std::int64_t old_size, const Word* start, std::int64_t grown,
           std::int64_t step, const std::int32_t* origin, std::int64_t size, Word* made,
           int threads);

}  // namespace regrow
