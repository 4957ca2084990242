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

// Unsigned numbers in the order of the floating-point ones, NaN last.
template <typename T>
Bits<T> key_of(T x) {
  using Word = Bits<T>;
  constexpr Word top = Word{1} << (sizeof(T) * 8 - 1);
  if (x != x) return ~Word{0};
  x += T{0};  // -0 becomes 0
  Word bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits ^ ((Word{0} - (bits >> (sizeof(T) * 8 - 1))) | top);
}

template <typename Word>
struct Ranked {
  Word key;
  Size rank, ties;  // its place among the entries of equal key, by position, and their number
};

// The entry of a rank, from 0, by its digits from the top; once few share those found, only these
// are looked at.
template <typename Word, typename Key>
Ranked<Word> nth(Size size, Size rank, Key key) {
  constexpr int kDigit = 10;
  Size counts[2][1 << kDigit];
  std::vector<Word> few;
  bool gathered = false;
  Word prefix = 0, fixed = 0;
  Size ties = size;
  for (int shift = sizeof(Word) * 8; shift > 0;) {
    const int width = std::min(kDigit, shift);
    const Word digits = (Word{1} << width) - 1;
    shift -= width;
    std::fill_n(counts[0], Size{2} << kDigit, 0);
    // Neighbours are counted apart: of two additions at one place, the second waits for the first.
    const auto count = [&](Word k, Size i) {
      if ((k & fixed) == prefix) ++counts[i & 1][(k >> shift) & digits];
    };
    if (!gathered && fixed != 0 && ties <= size / 4) {
      few.resize(ties + 1);
      for (Size i = 0, found = 0; i < size; ++i) {
        few[found] = key(i);
        found += (few[found] & fixed) == prefix;
      }
      few.pop_back();
      gathered = true;
    }
    if (gathered)
      for (Size i = 0; i < static_cast<Size>(few.size()); ++i) count(few[i], i);
    else
      for (Size i = 0; i < size; ++i) count(key(i), i);
    for (Size digit = 0;; ++digit) {
      ties = counts[0][digit] + counts[1][digit];
      if (rank < ties || digit == static_cast<Size>(digits)) {
        prefix |= static_cast<Word>(digit) << shift;
        break;
      }
      rank -= ties;
    }
    fixed |= digits << shift;
  }
  return {prefix, rank, ties};
}

template <typename T>
void push(Best<T>& best, T score, Size position) {
  // Minus infinity and NaN are as bad as a score can be, but free all the same.
  constexpr T least = std::numeric_limits<T>::lowest();
  best.scores[best.size] = score > least ? score : least;
  best.positions[best.size++] = position;
  if (best.size == best.capacity) settle(best);
}

// Scores that are looked at together.
constexpr Size kChunk = 1024;

// Where the row goes on in the taken positions, and whether the one asked for is among them; it is
// asked in rising order.
template <typename T>
struct Taken {
  const ScoreRows<T>& rows;
  Size next, end;

  bool operator()(Size column) {
    while (next < end && rows.indices[next] < column) ++next;
    return next < end && rows.indices[next] == column;
  }
};

}  // namespace

template <typename T>
void drop_lowest(const T* scores, Size size, Size count, std::uint8_t* keep) {
  if (count == 0) return;
  const auto last = nth<Bits<T>>(size, count - 1, [=](Size i) { return key_of(scores[i]); });
  Size ties = last.rank + 1;
  for (Size i = 0; i < size; ++i) {
    const Bits<T> k = key_of(scores[i]);
    keep[i] = k > last.key;
    if (k == last.key) keep[i] = ties-- <= 0;
  }
}

template <typename T>
void drop_nearest_zero(const T* values, Size size, Size below, Size positive, Size negative,
                       std::uint8_t* keep) {
  // In the order of the values, those that go are neighbours, on both sides of zero.
  const auto key = [=](Size i) { return key_of(values[i]); };
  const Bits<T> zero = key_of(T{0});  // nothing has the key below, that of -0
  Ranked<Bits<T>> low{zero - 1, 0, 0}, high = low;
  if (negative > 0) low = nth<Bits<T>>(size, below - negative, key);
  if (positive > 0) high = nth<Bits<T>>(size, below + positive - 1, key);
  Size low_ties = low.ties - low.rank, high_ties = high.rank + 1;
  for (Size i = 0; i < size; ++i) {
    const Bits<T> k = key(i);
    bool goes = (k > low.key) & (k < high.key);
    if (k == low.key && negative > 0) goes = low_ties-- > 0;
    if (k == high.key && positive > 0) goes = high_ties-- > 0;
    keep[i] = !goes;
  }
}

template <typename T>
void settle(Best<T>& best) {
  if (best.size <= best.count) return;
  const auto key = [&](Size i) { return key_of(best.scores[i]); };
  // Of those equal to the worst one kept, the first ones are kept.
  const auto worst = nth<Bits<T>>(best.size, best.size - best.count, key);
  Size ties = worst.ties - worst.rank, kept = 0;
  for (Size i = 0; i < best.size; ++i) {
    const Bits<T> k = key(i);
    bool stays = k > worst.key;
    if (k == worst.key) {
      best.bar = best.scores[i];
      stays = ties-- > 0;
    }
    best.scores[kept] = best.scores[i];
    best.positions[kept] = best.positions[i];
    kept += stays;
  }
  best.size = kept;
  best.full = true;
}

template <typename T>
void offer(Best<T>& best, const ScoreRows<T>& rows) {
  if (best.count == 0) return;
  const auto above = product_kernels<T>().above;
  std::uint16_t bits[kChunk / 16];
  const T* scores = rows.scores;
  for (Size row = rows.first_row; row < rows.last_row; ++row, scores += rows.columns) {
    Taken<T> taken{rows, rows.indptr[row], rows.indptr[row + 1]};
    Size column = 0;
    for (; column < rows.columns && !best.full; ++column)
      if (!taken(column)) push(best, scores[column], row * rows.columns + column);
    for (; column < rows.columns; column += kChunk) {
      const Size size = std::min(kChunk, rows.columns - column);
      above(scores + column, size, best.bar, bits);
      for (Size word = 0; word < size; word += 16)
        for (unsigned left = bits[word / 16]; left; left &= left - 1) {
          const Size at = column + word + __builtin_ctz(left);
          // The bar may have risen since.
          if (scores[at] > best.bar && !taken(at))
            push(best, scores[at], row * rows.columns + at);
        }
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
