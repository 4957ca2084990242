#include "rewire.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "pool.h"
#include "scratch.h"

namespace regrow {
namespace {

using Size = std::int64_t;

// Makes each number the sum of those before it; there is one more, for the sum of all.
void add_up(std::vector<Size>& numbers) {
  std::exclusive_scan(numbers.begin(), numbers.end(), numbers.begin(), Size{0});
}

void check_kept(Size found, Size kept) {
  if (found != kept)
    throw std::invalid_argument("keep must be set at " + std::to_string(kept) + ", got " +
                                std::to_string(found));
}

// The last of `count` numbers, from 0, for which something holds that holds up to some number.
template <typename F>
Size last_that(Size count, F&& holds) {
  Size first = 0;
  for (; count > 1; count -= count / 2)
    if (holds(first + count / 2)) first += count / 2;
  return first;
}

// Where a part of a merge begins: a connection and its row, and the first grown position behind it.
struct Start {
  Size connection, row, grown;
};

// Parts begin at connections, so that one long row is shared as well.
Start start_at(const Rows& old, Size connection, const Size* grown, Size count) {
  if (connection == 0) return {0, 0, 0};
  const Size* const end = old.indptr + old.rows;
  const Size row = std::upper_bound(old.indptr, end, connection) - old.indptr - 1;
  const Size position = row * old.columns + old.indices[connection];
  return {connection, row, std::lower_bound(grown, grown + count, position) - grown};
}

// What a merge returns that met no position twice.
constexpr Size kMerged = -1, kDisordered = -2;

// Merges one part into its slots, those below `stop`; returns the first clash or one of these.
Size merge_part(const Rows& old, const std::uint8_t* keep, const Size* grown, Start from, Start to,
                Size slot, Size stop, const Rewired& made) {
  std::int32_t* const indices = made.indices;
  std::int32_t* const origin = made.origin;
  Size k = from.connection, next = from.grown;
  for (Size row = from.row;; ++row) {
    const Size start = row * old.columns;
    const Size end = std::min(old.indptr[row + 1], to.connection);
    // Writing always and moving on sometimes has one branch less to be guessed.
    const auto take_old = [&] {
      indices[slot] = old.indices[k];
      origin[slot] = static_cast<std::int32_t>(k);
      slot += keep[k++] != 0;
    };
    for (; next < to.grown && grown[next] < start + old.columns; ++next) {
      const Size column = grown[next] - start;
      if (column < 0) return kDisordered;
      while (k < end && old.indices[k] < column) take_old();
      if (k < end && old.indices[k] == column && keep[k]) return grown[next];
      indices[slot] = static_cast<std::int32_t>(column);
      origin[slot++] = static_cast<std::int32_t>(~next);
    }
    while (k < end && slot < stop) take_old();
    k = end;
    if (row == to.row) break;
    made.indptr[row + 1] = slot;
  }
  return slot < stop ? kDisordered : kMerged;
}

}  // namespace

bool rises(const Size* numbers, Size count, int threads) {
  std::atomic<bool> falls{false};
  const Size pairs = std::max<Size>(0, count - 1);
  for_parts(parts_of(pairs), pairs, threads, [&](Size, Size first, Size last) {
    bool fell = false;
    for (Size i = first; i < last; ++i) fell |= numbers[i + 1] < numbers[i];
    if (fell) falls.store(true, std::memory_order_relaxed);
  });
  return !falls;
}

Size count_set(const std::uint8_t* flags, Size size) {
  // So few are counted at a time that a byte holds their number.
  constexpr Size kBlock = 128;
  Size found = 0, i = 0;
  for (; i + kBlock <= size; i += kBlock) {
    std::uint8_t some = 0;
    for (Size j = 0; j < kBlock; ++j) some = static_cast<std::uint8_t>(some + (flags[i + j] != 0));
    found += some;
  }
  for (; i < size; ++i) found += flags[i] != 0;
  return found;
}

void free_positions(const Rows& taken, Size* ranks, Size count, int threads) {
  const Size* const indptr = taken.indptr;
  const std::int32_t* const indices = taken.indices;
  const Size rows = taken.rows, columns = taken.columns;
  const auto before_row = [=](Size row) { return row * columns - indptr[row]; };
  for_parts(parts_of(indptr[rows] + count), count, threads, [=](Size, Size i, Size last) {
    if (i == last) return;
    const Size rank = ranks[i];
    Size row = last_that(rows, [=](Size r) { return before_row(r) <= rank; });
    // Free positions before connection k of the row have a rank below its position less k.
    Size k = indptr[row], start = row * columns, end = indptr[row + 1];
    const auto passed = [=](Size c) { return start + indices[k + c] - (k + c) <= rank; };
    if (k < end && passed(0)) k += last_that(end - k, passed);
    for (;;) {
      for (; k < end && i < last; ++k) {
        const Size bound = start + indices[k] - k;
        for (; i < last && ranks[i] < bound; ++i) ranks[i] += k;
      }
      // Those behind the last connection of the row; all that are left, if it is the last row.
      const Size bound = row + 1 < rows ? start + columns - k : std::numeric_limits<Size>::max();
      for (; i < last && ranks[i] < bound; ++i) ranks[i] += k;
      if (i == last) return;
      start += columns;
      end = indptr[++row + 1];
    }
  });
}

Size rewire(const Rows& old, const std::uint8_t* keep, Size kept, const Size* grown, Size count,
            const Rewired& made, int threads) {
  const Size nnz = old.indptr[old.rows], parts = parts_of(nnz + count);
  std::vector<Start> starts(parts + 1);
  std::vector<Size> slots(parts + 1, 0);
  starts[parts] = {nnz, old.rows - 1, count};
  for_parts(parts, nnz, threads, [&](Size part, Size first, Size last) {
    starts[part] = start_at(old, first, grown, count);
    slots[part] = count_set(keep + first, last - first);
  });
  add_up(slots);
  check_kept(slots[parts], kept);
  for (Size part = 0; part <= parts; ++part) {
    Size& from = starts[part].grown;
    // Columns out of order would lead to parts that overlap.
    if (part > 0) from = std::max(from, starts[part - 1].grown);
    slots[part] += from;
  }
  prefer_large_pages(made.indices, kept + count);
  prefer_large_pages(made.origin, kept + count);
  std::vector<Size> clashes(parts);
  made.indptr[0] = 0;
  parallel(parts, threads, [&](Size part, int) {
    const Start from = starts[part], to = starts[part + 1];
    Size twice = from.grown + (from.grown == 0);
    while (twice < to.grown && grown[twice] != grown[twice - 1]) ++twice;
    const Size there = merge_part(old, keep, grown, from, to, slots[part], slots[part + 1], made);
    clashes[part] = twice < to.grown && (there < 0 || grown[twice] < there) ? grown[twice] : there;
  });
  made.indptr[old.rows] = kept + count;
  for (const Size clash : clashes) {
    if (clash >= 0) return clash;
    if (clash == kDisordered) throw std::invalid_argument("indices must rise within each row");
  }
  return kMerged;
}

void keep_pointers(const Size* old, Size rows, const std::uint8_t* keep, Size* indptr,
                   int threads) {
  const Size parts = std::min(rows, parts_of(old[rows] + rows));
  for_parts(parts, rows, threads, [&](Size, Size first, Size last) {
    for (Size row = first; row < last; ++row)
      indptr[row + 1] = count_set(keep + old[row], old[row + 1] - old[row]);
  });
  indptr[0] = 0;
  for (Size row = 0; row < rows; ++row) indptr[row + 1] += indptr[row];
}

template <typename Word>
void compress(const Word* entries, const std::uint8_t* keep, Size size, Size kept, Word* out,
              int threads) {
  const Size parts = parts_of(size);
  std::vector<Size> slots(parts + 1, 0);
  for_parts(parts, size, threads, [&](Size part, Size first, Size last) {
    slots[part] = count_set(keep + first, last - first);
  });
  add_up(slots);
  check_kept(slots[parts], kept);
  prefer_large_pages(out, kept);
  for_parts(parts, size, threads, [&](Size part, Size first, Size last) {
    // Writing always and moving on sometimes has no branch to be guessed.
    const Size stop = slots[part + 1];
    for (Size i = first, slot = slots[part]; i < last && slot < stop; ++i) {
      out[slot] = entries[i];
      slot += keep[i] != 0;
    }
  });
}

template <typename Word>
bool carry(const Word* old, Size old_size, const Word* start, Size grown, Size step,
           const std::int32_t* origin, Size size, Word* made, int threads) {
  prefer_large_pages(made, size);
  // Shifted so that those that are right begin at 0.
  const auto below = static_cast<std::uint32_t>(grown);
  const std::uint32_t all = static_cast<std::uint32_t>(old_size) + below;
  std::atomic<bool> right{true};
  const auto make = [&](auto place) {
    // Looked up, as a branch would be guessed wrong time and again.
    const Word* const entries[] = {old, start};
    for_parts(parts_of(size), size, threads, [&](Size, Size first, Size last) {
      std::uint32_t wrong = 0;
      for (Size i = first; i < last; ++i)
        wrong |= static_cast<std::uint32_t>(origin[i]) + below >= all;
      if (wrong) return right.store(false, std::memory_order_relaxed);
      for (Size i = first; i < last; ++i) {
        const Size from = origin[i], fresh = from < 0;
        made[i] = entries[fresh][place(from, fresh)];
      }
    });
  };
  if (step == 0)
    make([](Size from, Size fresh) { return from & (fresh - 1); });
  else
    make([](Size from, Size fresh) { return from ^ -fresh; });
  return right;
}

#define REGROW_REWIRE(Word)                                                                      \
  template void compress<Word>(const Word*, const std::uint8_t*, Size, Size, Word*, int);        \
  template bool carry<Word>(const Word*, Size, const Word*, Size, Size, const std::int32_t*,     \
                            Size, Word*, int);
REGROW_REWIRE(std::uint8_t)
REGROW_REWIRE(std::uint16_t)
REGROW_REWIRE(std::uint32_t)
REGROW_REWIRE(std::uint64_t)
#undef REGROW_REWIRE

}  // namespace regrow
