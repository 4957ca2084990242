#include "select.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

#include "isa.h"
#include "pool.h"
#include "scratch.h"

namespace regrow {
namespace {

using Size = std::int64_t;

template <typename T>
using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

// Unsigned numbers in the order of the floating-point ones, NaN last.  Masks instead of choices, so
// that compilers form several at once.
template <typename T>
Bits<T> key_of(T x) {
  using Word = Bits<T>;
  constexpr Word top = Word{1} << (sizeof(T) * 8 - 1);
  Word bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits &= Word{0} - static_cast<Word>(bits != top);  // -0 becomes 0
  bits ^= (Word{0} - (bits >> (sizeof(T) * 8 - 1))) | top;
  return bits | (Word{0} - static_cast<Word>(x != x));
}

// The number of a key.
template <typename T>
T number_of(Bits<T> key) {
  constexpr Bits<T> top = Bits<T>{1} << (sizeof(T) * 8 - 1);
  key = key & top ? key ^ top : ~key;
  T x;
  std::memcpy(&x, &key, sizeof x);
  return x;
}

template <typename T>
struct Keys {
  const T* entries;
  Bits<T> operator()(Size i) const { return key_of(entries[i]); }
};

template <typename Word>
struct Listed {
  const Word* keys;
  Word operator()(Size i) const { return keys[i]; }
};

// Keys of a block are formed together, and then looked at one by one.
constexpr Size kBlock = 512;

template <typename Word, typename Key, typename F>
void each_block(Size first, Size last, const Key& key, F&& look) {
  Word keys[kBlock];
  for (; first < last; first += kBlock) {
    const Size count = std::min(kBlock, last - first);
    for (Size i = 0; i < count; ++i) keys[i] = key(first + i);
    look(keys, count);
  }
}

// Bits of a key that are looked at together.  The first of them tell apart negative numbers, others
// and NaN.
template <typename Word>
constexpr int kDigit = sizeof(Word) == 4 ? 12 : 13;

// The key of a rank, from 0, as far as it is known.
template <typename Word>
struct Sought {
  Size rank;            // its place among the entries that share the bits known
  Size count;           // how many these are
  Word known = 0;       // which bits are known, the first ones
  Word bits = 0;        // and what they are
  int left = 8 * sizeof(Word);  // how many are not

  bool shares(Word key) const { return (key & known) == bits; }
  int digit() const { return std::min(left, kDigit<Word>); }
};

// How many of the entries that share the known bits have each value of the digit behind them.
template <typename Word, typename Key>
std::vector<Size> counted(Size size, const Key& key, const Sought<Word>& sought, int threads) {
  const int digit = sought.digit(), shift = sought.left - digit;
  const Word others = Word{1} << digit;  // where the rest is counted
  const Size parts = parts_of(size), room = static_cast<Size>(others) + 1;
  threads = static_cast<int>(std::min<Size>(threads, parts));
  // Neighbours are counted apart: of two additions at one place, the second waits for the first.
  std::vector<Size> counts(2 * room * threads, 0);
  parallel(parts, threads, [&](Size part, int slot) {
    Size* const own = counts.data() + 2 * room * slot;
    const Size first = size * part / parts, last = size * (part + 1) / parts;
    each_block<Word>(first, last, key, [&](Word* keys, Size count) {
      for (Size i = 0; i < count; ++i) {
        const Word value = (keys[i] >> shift) & (others - 1);
        keys[i] = sought.shares(keys[i]) ? value : others;
      }
      for (Size i = 0; i < count; ++i) ++own[(i & 1) * room + static_cast<Size>(keys[i])];
    });
  });
  for (Size from = room; from < 2 * room * threads; from += room)
    for (Size i = 0; i < room; ++i) counts[i] += counts[from + i];
  counts.resize(room - 1);
  return counts;
}

// Takes in what is known of the next digit.
template <typename Word>
void learn(Sought<Word>& sought, const std::vector<Size>& counts) {
  Word value = 0;
  for (; sought.rank >= counts[value]; ++value) sought.rank -= counts[value];
  const int digit = sought.digit();
  sought.count = counts[value];
  sought.left -= digit;
  sought.known |= ((Word{1} << digit) - 1) << sought.left;
  sought.bits |= value << sought.left;
}

// The keys that share what is known, in any order: only keys are looked for among them.
template <typename Word>
struct Few {
  Sought<Word>* of;
  std::vector<Word> keys;
  std::atomic<Size> found{0};

  void take(const Word* from, Size count) {
    constexpr Size kGroup = 16;
    const Sought<Word> own = *of;
    Word some[kBlock];
    Size held = 0;
    for (Size i = 0; i < count; i += kGroup) {
      const Size end = std::min(count, i + kGroup);
      Word any = 0;
      for (Size j = i; j < end; ++j) any |= own.shares(from[j]);
      if (!any) continue;
      // Writing always and moving on sometimes has no branch to be guessed.
      for (Size j = i; j < end; ++j) {
        some[held] = from[j];
        held += own.shares(from[j]);
      }
    }
    std::copy_n(some, held, keys.data() + found.fetch_add(held, std::memory_order_relaxed));
  }
};

// Finds one or two keys to their last bit.  While many entries share what is known of one, they are
// counted where they are; when few do, they are listed first.
template <typename Word, typename Key>
void find(Size size, const Key& key, Sought<Word>* sought, int number, int threads) {
  constexpr Size kShare = 8;
  Few<Word> few[2];
  int lists = 0;
  for (int n = 0; n < number; ++n) {
    while (sought[n].left > 0 && sought[n].count > size / kShare)
      learn(sought[n], counted(size, key, sought[n], threads));
    if (sought[n].left == 0) continue;
    few[lists].of = sought + n;
    few[lists++].keys.resize(sought[n].count);
  }
  if (lists == 0) return;
  for_parts(parts_of(size), size, threads, [&](Size, Size first, Size last) {
    each_block<Word>(first, last, key, [&](const Word* keys, Size count) {
      for (int list = 0; list < lists; ++list) few[list].take(keys, count);
    });
  });
  for (int list = 0; list < lists; ++list)
    find(few[list].of->count, Listed<Word>{few[list].keys.data()}, few[list].of, 1, threads);
}

template <typename T>
using SoughtIn = Sought<Bits<T>>;

// Of the entries of one key, the first so many go.
template <typename Word>
struct Edge {
  Word key;
  Size going;
};

// What lies between two keys goes, and of the two what is said.
template <typename T>
void keep_outside(const T* entries, Size size, Edge<Bits<T>> low, Edge<Bits<T>> high,
                  std::uint8_t* keep, int threads) {
  using Word = Bits<T>;
  prefer_large_pages(keep, size);
  const Size parts = parts_of(size);
  const Edge<Word> edges[] = {low, high};
  std::vector<Size> equal[2] = {std::vector<Size>(parts), std::vector<Size>(parts)};
  for_parts(parts, size, threads, [&](Size part, Size first, Size last) {
    std::uint8_t* to = keep + first;
    each_block<Word>(first, last, Keys<T>{entries}, [&, to](const Word* keys, Size count) mutable {
      // Apart from where keys are looked at: bytes that are written may be anything.
      std::uint8_t flags[kBlock];
      for (Size i = 0; i < count; ++i) flags[i] = (keys[i] <= low.key) | (keys[i] >= high.key);
      std::copy_n(flags, count, to);
      to += count;
      Word lows = 0, highs = 0;
      for (Size i = 0; i < count; ++i) {
        lows += keys[i] == low.key;
        highs += keys[i] == high.key;
      }
      equal[0][part] += static_cast<Size>(lows);
      equal[1][part] += static_cast<Size>(highs);
    });
  });
  for (int edge = 0; edge < 2; ++edge) {
    // From how many there are to how many go.
    Size left = edges[edge].going;
    for (Size& number : equal[edge]) {
      number = std::min(number, left);
      left -= number;
    }
    if (edges[edge].going == 0) continue;
    for_parts(parts, size, threads, [&](Size part, Size first, Size) {
      Size going = equal[edge][part];
      for (Size i = first; going > 0; ++i) {
        const bool found = key_of(entries[i]) == edges[edge].key;
        keep[i] &= !found;
        going -= found;
      }
    });
  }
}

// How many of `count` values nearest zero are positive: the least number p for which the next one
// lies at a higher share of them than the last negative: (2p + 1) negatives > (2 (count - p) - 1)
// positives.
Size positive_share(Size positives, Size negatives, Size count) {
  if (count == 0) return 0;
  const auto total = static_cast<std::uint64_t>(positives + negatives);
  const auto twice = 2 * static_cast<std::uint64_t>(count) * static_cast<std::uint64_t>(positives);
  const auto share = static_cast<Size>((twice + total) / (2 * total));
  return std::min({std::max(share, count - negatives), positives, count});
}

// Scores that are looked at together.
constexpr Size kChunk = 1024;
constexpr Size kWord = 16;  // bits

// Marks of some scores that are to be taken in, from a column of a row on.
struct Marked {
  std::uint16_t bits[kChunk / kWord];
  Size column, size;

  void all() {
    std::fill_n(bits, size / kWord, std::uint16_t{0xFFFF});
    if (size % kWord) bits[size / kWord] = static_cast<std::uint16_t>((1u << size % kWord) - 1u);
  }
  void clear(Size at) {
    at -= column;
    if (at >= 0) bits[at / kWord] &= static_cast<std::uint16_t>(~(1u << at % kWord));
  }
};

// Takes in what is marked, for which there is room.
template <typename T>
void push(Best<T>& best, Marked& marked, const T* scores, Size position) {
  // Minus infinity and NaN are as bad as a score can be, but free all the same.
  constexpr T least = std::numeric_limits<T>::lowest();
  // The fewer loops over the bits of a word, the fewer of their ends are guessed wrong.
  constexpr Size kWords = 4;
  const Size words = (marked.size + kWord - 1) / kWord;
  for (Size word = words; word % kWords; ++word) marked.bits[word] = 0;
  Size size = best.size;
  for (Size word = 0; word < words; word += kWords) {
    std::uint64_t left = 0;
    for (Size i = 0; i < kWords; ++i)
      left |= static_cast<std::uint64_t>(marked.bits[word + i]) << kWord * i;
    for (; left; left &= left - 1) {
      const Size at = word * kWord + __builtin_ctzll(left);
      best.scores[size] = scores[at] > least ? scores[at] : least;
      best.positions[size++] = position + at;
    }
  }
  best.size = size;
}

}  // namespace

template <typename T>
void drop_lowest(const T* scores, Size size, Size count, std::uint8_t* keep, int threads) {
  const Edge<Bits<T>> none{0, 0};  // no number has this key
  if (count == 0) return keep_outside(scores, size, none, none, keep, threads);
  SoughtIn<T> last{count - 1, size};
  find(size, Keys<T>{scores}, &last, 1, threads);
  keep_outside(scores, size, none, {last.bits, last.rank + 1}, keep, threads);
}

template <typename T>
void drop_nearest_zero(const T* values, Size size, Size count, std::uint8_t* keep, int threads) {
  using Word = Bits<T>;
  // In the order of the values, those that go are neighbours, on both sides of zero.
  const Keys<T> key{values};
  const SoughtIn<T> all{0, size};
  const std::vector<Size> counts = counted(size, key, all, threads);
  const auto zero = counts.begin() + static_cast<Size>(counts.size() / 2);
  const Size below = std::accumulate(counts.begin(), zero, Size{0});
  const Size above = size - below - counts.back();
  count = std::min(count, below + above);
  const Size positive = positive_share(above, below, count), negative = count - positive;
  const Word none = key_of(T{0}) - 1;  // that of -0, which no number has
  Edge<Word> low{none, 0}, high{none, 0};
  SoughtIn<T> sought[2];
  int number = 0;
  if (negative > 0) sought[number++] = {below - negative, size};
  if (positive > 0) sought[number++] = {below + positive - 1, size};
  for (int n = 0; n < number; ++n) learn(sought[n], counts);
  find(size, key, sought, number, threads);
  if (negative > 0) low = {sought[0].bits, sought[0].count - sought[0].rank};
  if (positive > 0) high = {sought[number - 1].bits, sought[number - 1].rank + 1};
  keep_outside(values, size, low, high, keep, threads);
}

template <typename T>
void settle(Best<T>& best, int threads) {
  if (best.size <= best.count) return;
  // Of those equal to the worst one kept, the first ones are kept.
  SoughtIn<T> worst{best.size - best.count, best.size};
  find(best.size, Keys<T>{best.scores}, &worst, 1, threads);
  const T bar = number_of<T>(worst.bits);
  Size ties = worst.count - worst.rank, kept = 0;
  for (Size i = 0; i < best.size; ++i) {
    bool stays = best.scores[i] > bar;
    if (best.scores[i] == bar) stays = ties-- > 0;
    best.scores[kept] = best.scores[i];
    best.positions[kept] = best.positions[i];
    kept += stays;
  }
  best.size = kept;
  best.bar = bar;
  best.full = true;
}

template <typename T>
void offer(Best<T>& best, const ScoreRows<T>& rows, int threads) {
  if (best.count == 0) return;
  const auto above = product_kernels<T>().above;
  Marked marked;
  const T* scores = rows.scores;
  for (Size row = rows.first_row; row < rows.last_row; ++row) {
    const std::int32_t* taken = rows.indices + rows.indptr[row];
    const std::int32_t* const end = rows.indices + rows.indptr[row + 1];
    for (Size column = 0; column < rows.columns; column += marked.size, scores += marked.size) {
      const Size wanted = std::min(kChunk, rows.columns - column);
      if (best.capacity - best.size < wanted) settle(best, threads);
      marked.column = column;
      marked.size = std::min(wanted, best.capacity - best.size);
      if (best.full)
        above(scores, marked.size, best.bar, marked.bits);
      else
        marked.all();
      for (; taken < end && *taken < column + marked.size; ++taken) marked.clear(*taken);
      push(best, marked, scores, row * rows.columns + column);
    }
  }
}

#define REGROW_SELECT(T)                                                                       \
  template void drop_lowest<T>(const T*, Size, Size, std::uint8_t*, int);                      \
  template void drop_nearest_zero<T>(const T*, Size, Size, std::uint8_t*, int);                \
  template void offer<T>(Best<T>&, const ScoreRows<T>&, int);                                  \
  template void settle<T>(Best<T>&, int);
REGROW_SELECT(float)
REGROW_SELECT(double)
#undef REGROW_SELECT

}  // namespace regrow
