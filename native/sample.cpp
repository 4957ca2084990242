#include "sample.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "pool.h"
#include "scratch.h"

namespace regrow {
namespace {

using Size = std::int64_t;
using Word = std::uint64_t;
__extension__ typedef unsigned __int128 Wide;

Word split_mix(Word& state) {
  Word z = (state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// xoshiro256++ of D. Blackman and S. Vigna; every stream of a seed is a generator of its own.
class Random {
 public:
  Random(Word seed, Word stream) {
    Word state = seed;
    state = split_mix(state) ^ stream;
    for (Word& word : state_) word = split_mix(state);
  }

  Word operator()() {
    const Word result = rotated(state_[0] + state_[3], 23) + state_[0];
    const Word t = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = rotated(state_[3], 45);
    return result;
  }

  // Uniform in [0, bound) without bias: D. Lemire, "Fast random integer generation in an
  // interval", 2019.
  Word below(Word bound) {
    Wide product = static_cast<Wide>((*this)()) * bound;
    if (static_cast<Word>(product) < bound) {
      const Word least = -bound % bound;
      while (static_cast<Word>(product) < least) product = static_cast<Wide>((*this)()) * bound;
    }
    return static_cast<Word>(product >> 64);
  }

 private:
  static Word rotated(Word x, int k) { return (x << k) | (x >> (64 - k)); }

  Word state_[4];
};

// Divides by a number that stays, without a division.
class Reciprocal {
 public:
  explicit Reciprocal(Word divisor) : divisor_(divisor), inverse_(~Word{0} / divisor) {}

  // Of a number below 2^63; the product is short of the quotient by one at most.
  Word quotient(Word number) const {
    const auto low = static_cast<Word>(static_cast<Wide>(number) * inverse_ >> 64);
    return low + (number - low * divisor_ >= divisor_);
  }

 private:
  Word divisor_, inverse_;
};

// Sorts numbers that are uniform in [0, width), in linear time, and drops the repeated ones.
class Sorter {
 public:
  void sort(std::vector<Word>& keys, Word width) {
    if (dense(keys, width)) {
      mark(keys, width);
      Size found = 0;
      for (Word word = 0; word < marks_.size(); ++word)
        for (Word left = marks_[word]; left; left &= left - 1)
          keys[found++] = word * kBits + static_cast<Word>(__builtin_ctzll(left));
      return keys.resize(found);
    }
    const Size count = static_cast<Size>(keys.size());
    if (count > 1) {
      spread(keys, count, width);
      for (Size i = 1; i < count; ++i) {
        const Word key = keys[i];
        Size j = i;
        for (; j > 0 && keys[j - 1] > key; --j) keys[j] = keys[j - 1];
        keys[j] = key;
      }
    }
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  }

  // How many would be left; the numbers may be sorted afterwards or not.
  Word distinct(std::vector<Word>& keys, Word width) {
    if (dense(keys, width)) return mark(keys, width);
    sort(keys, width);
    return keys.size();
  }

  static constexpr Word kBits = 64;

 private:
  // Whether a bit for each number of the range takes little more room than the keys.
  static bool dense(const std::vector<Word>& keys, Word width) {
    return width / kBits <= 2 * keys.size();
  }

  // Sets the bit of each key, and returns how many are set.
  Word mark(const std::vector<Word>& keys, Word width) {
    marks_.assign(width / kBits + 1, 0);
    Word found = 0;
    for (const Word key : keys) {
      Word& marks = marks_[key / kBits];
      found += ~(marks >> key % kBits) & 1;
      marks |= Word{1} << key % kBits;
    }
    return found;
  }

  // Puts each key near its place: equal shares of the range, one for each key, in order.
  void spread(std::vector<Word>& keys, Size count, Word width) {
    const double scale = static_cast<double>(count) / static_cast<double>(width);
    const auto share_of = [=](Word key) {
      return std::min<Size>(count - 1, static_cast<Size>(static_cast<double>(key) * scale));
    };
    starts_.assign(count + 1, 0);
    for (const Word key : keys) ++starts_[share_of(key) + 1];
    for (Size i = 0; i < count; ++i) starts_[i + 1] += starts_[i];
    from_.swap(keys);
    keys.resize(count);
    for (const Word key : from_) keys[starts_[share_of(key)]++] = key;
  }

  std::vector<Size> starts_;
  std::vector<Word> from_, marks_;
};

// The range in buckets of equal width, with as many draws each as fit in the first-level cache.
//
// It stands for one sequence of independent draws of [0, total), cut where `count` distinct numbers
// have been seen: by symmetry, every set of `count` numbers is equally likely. Which bucket the
// draws fall in comes from one stream; where in bucket b the first, second, ... draw falls from
// stream b + 1. So a bucket can be made again at any time from the number of its draws; those into
// which nothing more was drawn are held as they were made first, if 32 bits do for that.
class Buckets {
 public:
  Buckets(Word total, Word count, Word seed) : total_(total), seed_(seed) {
    const Word aim = std::max<Word>(1, count / kDraws);
    width_ = (total + aim - 1) / aim;
    drawn_.assign((total + width_ - 1) / width_, 0);
    distinct_ = drawn_;
    held_.assign(drawn_.size(), 0);
    // Marks are read again as fast.
    if (width_ > 2 * Sorter::kBits * kDraws && width_ <= Word{1} << 32) {
      keys_.reset(new std::uint32_t[count]);
      prefer_large_pages(keys_.get(), static_cast<Size>(count));
    }
  }

  Size size() const { return static_cast<Size>(drawn_.size()); }
  Word first(Size bucket) const { return width_ * static_cast<Word>(bucket); }
  Word width(Size bucket) const { return std::min(width_, total_ - first(bucket)); }

  // Fixes how often each bucket is drawn from.
  void draw(Word count, int threads) {
    Random choose(seed_, 0);
    const Reciprocal per_width(width_);
    std::vector<Size> changed;
    std::vector<Word> before;
    for (Word missing = count; missing > 0;) {
      const bool first = before.empty();
      before = drawn_;
      for (Word i = 0; i < missing; ++i) ++drawn_[per_width.quotient(choose.below(total_))];
      changed.clear();
      for (Size b = 0; b < size(); ++b)
        if (drawn_[b] != before[b]) changed.push_back(b);
      if (first) starts_ = sums_of(drawn_);
      const auto many = static_cast<Size>(changed.size());
      in_parallel(many, threads, [&](Size i, Sorter& sorter, std::vector<Word>& keys) {
        const Size b = changed[i];
        make(b, keys);
        held_[b] = first && keys_;
        if (held_[b]) {
          sorter.sort(keys, width(b));
          std::copy(keys.begin(), keys.end(), keys_.get() + starts_[b]);
          distinct_[b] = keys.size();
        } else {
          distinct_[b] = sorter.distinct(keys, width(b));
        }
      });
      missing = count;
      for (const Word found : distinct_) missing -= found;
    }
  }

  // Calls `emit(first, last, keys, count, offset)`: rising numbers above `first` of each bucket.
  template <typename Emit>
  void each(int threads, Emit&& emit) const {
    const std::vector<Size> offset = sums_of(distinct_);
    in_parallel(size(), threads, [&](Size b, Sorter& sorter, std::vector<Word>& keys) {
      if (held_[b]) {
        const std::uint32_t* const held = keys_.get() + starts_[b];
        keys.assign(held, held + distinct_[b]);
      } else {
        make(b, keys);
        sorter.sort(keys, width(b));
      }
      emit(first(b), first(b) + width(b), keys.data(), static_cast<Size>(keys.size()), offset[b]);
    });
  }

 private:
  static constexpr Word kDraws = 1024;
  static constexpr Size kBucketsPerUnit = 64;

  static std::vector<Size> sums_of(const std::vector<Word>& numbers) {
    std::vector<Size> sums(numbers.size() + 1, 0);
    for (std::size_t b = 0; b < numbers.size(); ++b)
      sums[b + 1] = sums[b] + static_cast<Size>(numbers[b]);
    return sums;
  }

  void make(Size bucket, std::vector<Word>& keys) const {
    Random random(seed_, static_cast<Word>(bucket) + 1);
    const Word span = width(bucket);
    keys.resize(drawn_[bucket]);
    for (Word& key : keys) key = random.below(span);
  }

  template <typename F>
  static void in_parallel(Size count, int threads, F&& body) {
    const Size units = (count + kBucketsPerUnit - 1) / kBucketsPerUnit;
    parallel(units, threads, [&](Size unit, int) {
      Sorter sorter;
      std::vector<Word> keys;
      const Size last = std::min(count, (unit + 1) * kBucketsPerUnit);
      for (Size i = unit * kBucketsPerUnit; i < last; ++i) body(i, sorter, keys);
    });
  }

  Word total_, seed_, width_;
  std::vector<Word> drawn_, distinct_;
  std::unique_ptr<std::uint32_t[]> keys_;  // of the buckets held, where the first draws begin
  std::vector<Size> starts_;
  std::vector<std::uint8_t> held_;
};

// Goes through all numbers and takes each with the chance that is right given those before it.
template <typename Emit>
void select(Word total, Word count, Word seed, Emit&& emit) {
  constexpr Word kBlock = 4096;
  Random random(seed, 0);
  std::vector<Word> keys(kBlock);
  Word missing = count;
  for (Word first = 0; first < total; first += kBlock) {
    const Word width = std::min(kBlock, total - first);
    Size taken = 0;
    for (Word i = 0; i < width; ++i) {
      const bool take = random.below(total - first - i) < missing;
      keys[taken] = i;
      taken += take;
      missing -= take;
    }
    emit(first, first + width, keys.data(), taken, static_cast<Size>(count - missing) - taken);
  }
}

template <typename Emit>
void draw(Word total, Word count, Word seed, int threads, Emit&& emit) {
  if (count == 0) return emit(Word{0}, total, nullptr, Size{0}, Size{0});
  // Where many draws would meet a number that is there, looking at each number is faster.
  if (total / 4 <= count) return select(total, count, seed, emit);
  Buckets buckets(total, count, seed);
  buckets.draw(count, threads);
  buckets.each(threads, emit);
}

}  // namespace

void sample(Size total, Size count, Word seed, Size* numbers, int threads) {
  prefer_large_pages(numbers, count);
  draw(total, count, seed, threads,
       [=](Word first, Word, const Word* keys, Size found, Size offset) {
         for (Size i = 0; i < found; ++i) numbers[offset + i] = static_cast<Size>(first + keys[i]);
       });
}

void sample_matrix(Size rows, Size columns, Size count, Word seed, Size* indptr,
                   std::int32_t* indices, int threads) {
  const Word width = static_cast<Word>(columns);
  indptr[rows] = count;
  prefer_large_pages(indices, count);
  draw(width * static_cast<Word>(rows), count, seed, threads,
       [=](Word first, Word last, const Word* keys, Size found, Size offset) {
         // Each row's pointer is written by the part of the range in which the row begins.
         Word row = (first + width - 1) / width, next = row * width, begin = first / width * width;
         for (Size i = 0; i < found; ++i) {
           const Word position = first + keys[i];
           for (; position >= next; next += width) {
             indptr[row++] = offset + i;
             begin = next;
           }
           indices[offset + i] = static_cast<std::int32_t>(position - begin);
         }
         for (; next < last; next += width) indptr[row++] = offset + found;
       });
}

}  // namespace regrow
