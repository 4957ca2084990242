#include "rewire.h"

#include <algorithm>

#include "pool.h"

namespace regrow {

using Size = std::int64_t;

void free_positions(const Rows& taken, Size* ranks, Size count) {
  Size i = 0, before = 0;  // ranks replaced, connections passed
  for (Size row = 0; row < taken.rows && i < count; ++row) {
    const Size start = row * taken.columns, end = taken.indptr[row + 1];
    while (before < end) {
      // Free positions before the next connection have a rank below its position less `before`.
      const Size bound = start + taken.indices[before] - before;
      for (; i < count && ranks[i] < bound; ++i) ranks[i] += before;
      if (i == count) return;
      ++before;
    }
    const Size bound = start + taken.columns - before;
    for (; i < count && ranks[i] < bound; ++i) ranks[i] += before;
  }
}

Size rewire(const Rows& old, const std::uint8_t* keep, Size kept, const Size* grown, Size count,
            const Rewired& made) {
  const Size room = kept + count;
  Size slot = 0, next = 0;
  made.indptr[0] = 0;
  for (Size row = 0; row < old.rows; ++row) {
    const Size start = row * old.columns, stop = start + old.columns;
    Size k = old.indptr[row];
    const Size end = old.indptr[row + 1];
    for (; next < count && grown[next] < stop; ++next) {
      const Size column = grown[next] - start;
      for (; k < end && old.indices[k] < column; ++k) {
        if (slot == room) break;
        made.indices[slot] = old.indices[k];
        made.origin[slot] = static_cast<std::int32_t>(k);
        slot += keep[k] != 0;
      }
      const bool there = k < end && old.indices[k] == column && keep[k];
      const bool twice = next > 0 && grown[next] == grown[next - 1];
      if (there || twice || slot == room) return grown[next];
      made.indices[slot] = static_cast<std::int32_t>(column);
      made.origin[slot++] = static_cast<std::int32_t>(~next);
    }
    for (; k < end && slot < room; ++k) {
      made.indices[slot] = old.indices[k];
      made.origin[slot] = static_cast<std::int32_t>(k);
      slot += keep[k] != 0;
    }
    made.indptr[row + 1] = slot;
  }
  return -1;
}

template <typename Word>
void compress(const Word* entries, const std::uint8_t* keep, Size size, Size kept, Word* out) {
  // Writing always and moving on sometimes has no branch to be guessed.
  for (Size i = 0, slot = 0; i < size && slot < kept; ++i) {
    out[slot] = entries[i];
    slot += keep[i] != 0;
  }
}

template <typename Word>
void carry(const Word* old, const Word* start, const std::int32_t* origin, Size size, Word* made,
           int threads) {
  constexpr Size kBlock = 1 << 16;
  // Looked up, as a branch would be guessed wrong time and again.
  const Word* const entries[] = {old, start};
  parallel((size + kBlock - 1) / kBlock, threads, [&](Size block, int) {
    const Size last = std::min(size, (block + 1) * kBlock);
    for (Size i = block * kBlock; i < last; ++i) {
      const Size from = origin[i], grown = from < 0;
      made[i] = entries[grown][from ^ -grown];
    }
  });
}

#define REGROW_REWIRE(Word)                                                                     \
  template void compress<Word>(const Word*, const std::uint8_t*, Size, Size, Word*);            \
  template void carry<Word>(const Word*, const Word*, const std::int32_t*, Size, Word*, int);
REGROW_REWIRE(std::uint8_t)
REGROW_REWIRE(std::uint16_t)
REGROW_REWIRE(std::uint32_t)
REGROW_REWIRE(std::uint64_t)
#undef REGROW_REWIRE

}  // namespace regrow
