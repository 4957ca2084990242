#include "rewire.h"

#include <algorithm>

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
  std::fill_n(made.fresh, room, 0);
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
        slot += keep[k] != 0;
      }
      const bool there = k < end && old.indices[k] == column && keep[k];
      const bool twice = next > 0 && grown[next] == grown[next - 1];
      if (there || twice || slot == room) return grown[next];
      made.indices[slot] = static_cast<std::int32_t>(column);
      made.fresh[slot++] = 1;
    }
    for (; k < end && slot < room; ++k) {
      made.indices[slot] = old.indices[k];
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
void carry(const Word* old, const std::uint8_t* keep, Size old_size, const Word* start,
           const Size* order, Size grown, const std::uint8_t* fresh, Size new_size, Word* made) {
  constexpr Size kBlock = 1024;
  Word kept[kBlock + 1];
  Size ready = 0, used = 0, next = 0, started = 0;
  for (Size slot = 0; slot < new_size; ++slot) {
    if (used == ready) {
      for (used = ready = 0; ready == 0 && next < old_size;) {
        const Size last = std::min(old_size, next + kBlock);
        for (; next < last; ++next) {
          kept[ready] = old[next];
          ready += keep[next] != 0;
        }
      }
      if (ready == 0) kept[0] = Word{0};
    }
    const bool is_new = fresh[slot] != 0 && started < grown;
    const Word* const from = is_new ? start + (order ? order[started] : started) : kept + used;
    made[slot] = *from;
    started += is_new;
    used += !is_new && used < ready;
  }
}

#define REGROW_REWIRE(Word)                                                                     \
  template void compress<Word>(const Word*, const std::uint8_t*, Size, Size, Word*);            \
  template void carry<Word>(const Word*, const std::uint8_t*, Size, const Word*, const Size*,   \
                            Size, const std::uint8_t*, Size, Word*);
REGROW_REWIRE(std::uint8_t)
REGROW_REWIRE(std::uint16_t)
REGROW_REWIRE(std::uint32_t)
REGROW_REWIRE(std::uint64_t)
#undef REGROW_REWIRE

}  // namespace regrow
