#include "select.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "isa.h"

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

template <typename Word>
struct Ranked {
  Word key;
  Size rank, ties;  // its place among the entries of equal key, by position, and their number
};

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

// Finds entries by their ranks.  Keys are counted by the digit at which they begin to differ, and
// then only those are looked at that share the one found.
template <typename Word, typename Key>
class Ranks {
 public:
  Ranks(Size size, Key key) : size_(size), key_(key) {
    Word low = ~Word{0}, high = 0;
    for (Size i = 0; i < size; ++i) {
      low = std::min(low, key(i));
      high = std::max(high, key(i));
    }
    low_ = low;
    while ((high - low) >> shift_ >> kDigit) ++shift_;
    // Neighbours are counted apart: of two additions at one place, the second waits for the first.
    each([&](Word k, Size i) { ++counts_[i & 1][digit_of(k)]; });
  }

  // The entry of a rank, from 0.
  Ranked<Word> find(Size rank) const {
    Word digit = 0;
    Size ties;
    for (;; ++digit) {
      ties = counts_[0][digit] + counts_[1][digit];
      if (rank < ties) break;
      rank -= ties;
    }
    if (shift_ == 0) return {low_ + digit, rank, ties};
    // Writing always and moving on sometimes has no branch to be guessed.
    std::vector<Word> few(ties + 1);
    Size found = 0;
    each([&](Word k, Size) {
      few[found] = k;
      found += digit_of(k) == digit;
    });
    return Ranks<Word, Listed<Word>>(ties, {few.data()}).find(rank);
  }

 private:
  static constexpr int kDigit = 11;

  Word digit_of(Word key) const { return (key - low_) >> shift_; }

  // Keys of a block are formed together, and then looked at one by one.
  template <typename F>
  void each(F&& look) const {
    constexpr Size kBlock = 512;
    Word keys[kBlock];
    for (Size first = 0; first < size_; first += kBlock) {
      const Size count = std::min(kBlock, size_ - first);
      for (Size i = 0; i < count; ++i) keys[i] = key_(first + i);
      for (Size i = 0; i < count; ++i) look(keys[i], i);
    }
  }

  Size size_;
  Key key_;
  Word low_;
  int shift_ = 0;
  Size counts_[2][1 << kDigit] = {};
};

template <typename T>
using RanksOf = Ranks<Bits<T>, Keys<T>>;

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

// Clears `keep` at the first `count` entries of a key.
template <typename T>
void clear_first(const T* entries, Bits<T> key, Size count, std::uint8_t* keep) {
  for (Size i = 0; count > 0; ++i) {
    const bool found = key_of(entries[i]) == key;
    keep[i] &= !found;
    count -= found;
  }
}

}  // namespace

template <typename T>
void drop_lowest(const T* scores, Size size, Size count, std::uint8_t* keep) {
  if (count == 0) return;
  const auto last = RanksOf<T>(size, {scores}).find(count - 1);
  for (Size i = 0; i < size; ++i) keep[i] = key_of(scores[i]) >= last.key;
  clear_first(scores, last.key, last.rank + 1, keep);
}

template <typename T>
void drop_nearest_zero(const T* values, Size size, Size below, Size positive, Size negative,
                       std::uint8_t* keep) {
  // In the order of the values, those that go are neighbours, on both sides of zero.
  const auto key = [=](Size i) { return key_of(values[i]); };
  const Bits<T> zero = key_of(T{0});  // nothing has the key below, that of -0
  Ranked<Bits<T>> low{zero - 1, 0, 0}, high = low;
  if (negative > 0 || positive > 0) {
    const RanksOf<T> ranks(size, {values});
    if (negative > 0) low = ranks.find(below - negative);
    if (positive > 0) high = ranks.find(below + positive - 1);
  }
  for (Size i = 0; i < size; ++i) keep[i] = !((key(i) > low.key) & (key(i) < high.key));
  if (negative > 0) clear_first(values, low.key, low.ties - low.rank, keep);
  if (positive > 0) clear_first(values, high.key, high.rank + 1, keep);
}

template <typename T>
void settle(Best<T>& best) {
  if (best.size <= best.count) return;
  // Of those equal to the worst one kept, the first ones are kept.
  const auto worst = RanksOf<T>(best.size, {best.scores}).find(best.size - best.count);
  const T bar = number_of<T>(worst.key);
  Size ties = worst.ties - worst.rank, kept = 0;
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
void offer(Best<T>& best, const ScoreRows<T>& rows) {
  if (best.count == 0) return;
  const auto above = product_kernels<T>().above;
  Marked marked;
  const T* scores = rows.scores;
  for (Size row = rows.first_row; row < rows.last_row; ++row) {
    const std::int32_t* taken = rows.indices + rows.indptr[row];
    const std::int32_t* const end = rows.indices + rows.indptr[row + 1];
    for (Size column = 0; column < rows.columns; column += marked.size, scores += marked.size) {
      const Size wanted = std::min(kChunk, rows.columns - column);
      if (best.capacity - best.size < wanted) settle(best);
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
  template void drop_lowest<T>(const T*, Size, Size, std::uint8_t*);                           \
  template void drop_nearest_zero<T>(const T*, Size, Size, Size, Size, std::uint8_t*);         \
  template void offer<T>(Best<T>&, const ScoreRows<T>&);                                       \
  template void settle<T>(Best<T>&);
REGROW_SELECT(float)
REGROW_SELECT(double)
#undef REGROW_SELECT

}  // namespace regrow
