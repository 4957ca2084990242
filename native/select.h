// The lowest and the highest of many scores, in linear time; ties go to the first position.
#pragma once

#include <cstdint>

namespace regrow {

// Makes `keep` 0 at the `count` lowest scores and 1 elsewhere; NaN is above everything, -0 is 0.
template <typename T>
void drop_lowest(const T* scores, std::int64_t size, std::int64_t count, std::uint8_t* keep,
                 int threads);

// Makes `keep` 0 at the `count` values nearest zero, the same share of those >= 0 and of those < 0,
// and 1 elsewhere; NaN is neither.
template <typename T>
void drop_nearest_zero(const T* values, std::int64_t size, std::int64_t count, std::uint8_t* keep,
                       int threads);

// The highest free scores seen so far: room for `capacity` above `count`, in rising position.
template <typename T>
struct Best {
  T* scores;
  std::int64_t* positions;
  std::int64_t capacity, count;
  std::int64_t size;  // how many there are now
  bool full;          // whether worse ones have been thrown away: those left are `bar` or better
  T bar;
};

// Whole rows of scores in a matrix of which some positions are taken.
template <typename T>
struct ScoreRows {
  const T* scores;
  const std::int64_t* indptr;
  const std::int32_t* indices;
  std::int64_t columns, first_row, last_row;
};

// Takes in the free scores of some rows, below those of earlier calls; NaN counts as the lowest.
template <typename T>
void offer(Best<T>& best, const ScoreRows<T>& rows, int threads);

// Throws away all but the best `count`.
template <typename T>
void settle(Best<T>& best, int threads);

}  // namespace regrow
