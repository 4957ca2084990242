#include "structure.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "isa.h"
#include "pool.h"
#include "scratch.h"

namespace regrow {
namespace {

// Splits the rows in units of about equal work and runs `body(first_row, last_row)` on each.
template <typename F>
void for_rows(std::int64_t rows, std::int64_t elements, int threads, F&& body) {
  const std::int64_t units = std::min(parts_of(elements), std::max<std::int64_t>(1, rows));
  for_parts(units, rows, threads,
            [&](std::int64_t, std::int64_t first, std::int64_t last) { body(first, last); });
}

[[noreturn]] void fail(const std::string& message) { throw std::invalid_argument(message); }

[[noreturn]] void name_bad_index(const std::int32_t* indices, std::int64_t first,
                                 std::int64_t last, std::int64_t row, std::int64_t columns) {
  for (std::int64_t k = first; k < last; ++k) {
    const std::string place = "indices[" + std::to_string(k) + "] of row " + std::to_string(row);
    if (indices[k] < 0 || indices[k] >= columns)
      fail(place + " must be in [0, " + std::to_string(columns) + "), got " +
           std::to_string(indices[k]));
    if (k > first && indices[k] <= indices[k - 1])
      fail(place + " must be above the one before it, " + std::to_string(indices[k - 1]) +
           ", got " + std::to_string(indices[k]));
  }
  fail("indices changed while they were checked");
}

// Calls `body(k, row)` for connections k in [first, last).
template <typename F>
void each_connection(const std::int64_t* indptr, std::int64_t rows, std::int64_t first,
                     std::int64_t last, F&& body) {
  std::int64_t row = std::upper_bound(indptr, indptr + rows, first) - indptr - 1;
  for (std::int64_t k = first; k < last; ++row)
    for (const std::int64_t end = std::min(indptr[row + 1], last); k < end; ++k) body(k, row);
}

struct Transposed {
  std::int64_t* indptr;
  std::int32_t* indices;
  std::int32_t* perm;
};

// Where each part has its slots of each group of columns, those that share all bits but the last
// `shift`: part by part, group by group.  `starts` gets the first slot of each group, and nnz.
std::vector<std::int32_t> slots_of(const std::int32_t* indices, std::int64_t nnz,
                                   std::int64_t groups, int shift, std::int64_t parts, int threads,
                                   std::int64_t* starts) {
  std::vector<std::int32_t> slots(parts * groups, 0);
  for_parts(parts, nnz, threads, [&](std::int64_t part, std::int64_t first, std::int64_t last) {
    std::int32_t* const own = slots.data() + part * groups;
    for (std::int64_t k = first; k < last; ++k) ++own[indices[k] >> shift];
  });
  std::int64_t slot = 0;
  for (std::int64_t group = 0; group < groups; ++group) {
    starts[group] = slot;
    for (std::int64_t part = 0; part < parts; ++part) {
      std::int32_t& own = slots[part * groups + group];
      const std::int32_t count = own;
      own = static_cast<std::int32_t>(slot);
      slot += count;
    }
  }
  starts[groups] = nnz;
  return slots;
}

// Counts each column in each part, and then every part fills its own slots.
void transpose_by_counting(const std::int64_t* indptr, const std::int32_t* indices,
                           std::int64_t rows, std::int64_t columns, const Transposed& made,
                           std::int64_t parts, int threads) {
  const std::int64_t nnz = indptr[rows];
  auto slots = slots_of(indices, nnz, columns, 0, parts, threads, made.indptr);
  for_parts(parts, nnz, threads, [&](std::int64_t part, std::int64_t first, std::int64_t last) {
    std::int32_t* const own = slots.data() + part * columns;
    each_connection(indptr, rows, first, last, [&](std::int64_t k, std::int64_t row) {
      const std::int64_t to = own[indices[k]]++;
      made.indices[to] = static_cast<std::int32_t>(row);
      made.perm[to] = static_cast<std::int32_t>(k);
    });
  });
}

// Where there are so many columns that the ends of all do not stay in the caches, connections are
// put in buckets of some columns each first, and every bucket is ordered in the caches then.
//
// Returns false, with nothing done, where most are in few buckets: few ends are written to there.
bool transpose_by_buckets(const std::int64_t* indptr, const std::int32_t* indices,
                          std::int64_t rows, std::int64_t columns, const Transposed& made,
                          int shift, int threads) {
  const std::int64_t nnz = indptr[rows], buckets = ((columns - 1) >> shift) + 1;
  const std::int64_t width = std::int64_t{1} << shift;
  const std::int64_t parts = std::min<std::int64_t>(parts_of(nnz), threads > 1 ? 4 * threads : 1);
  std::vector<std::int64_t> starts(buckets + 1);
  auto slots = slots_of(indices, nnz, buckets, shift, parts, threads, starts.data());
  std::int64_t largest = 0;
  for (std::int64_t bucket = 0; bucket < buckets; ++bucket)
    largest = std::max(largest, starts[bucket + 1] - starts[bucket]);
  if (largest > nnz / 8) return false;
  // Of each connection in the order of the buckets, the column in its bucket.
  const std::unique_ptr<std::uint16_t[]> place(new std::uint16_t[nnz]);
  prefer_large_pages(place.get(), nnz);
  for_parts(parts, nnz, threads, [&](std::int64_t part, std::int64_t first, std::int64_t last) {
    std::int32_t* const own = slots.data() + part * buckets;
    each_connection(indptr, rows, first, last, [&](std::int64_t k, std::int64_t row) {
      const std::int64_t to = own[indices[k] >> shift]++;
      made.indices[to] = static_cast<std::int32_t>(row);
      made.perm[to] = static_cast<std::int32_t>(k);
      place[to] = static_cast<std::uint16_t>(indices[k] & (width - 1));
    });
  });
  struct Pair {
    std::int32_t row, slot;
  };
  threads = static_cast<int>(std::min<std::int64_t>(threads, buckets));
  const std::unique_ptr<Pair[]> pairs(new Pair[largest * threads]);
  std::vector<std::int32_t> ends(threads * width);
  parallel(buckets, threads, [&](std::int64_t bucket, int thread) {
    const std::int64_t first = starts[bucket], last = starts[bucket + 1];
    std::int32_t* const own = ends.data() + thread * width;
    Pair* const ordered = pairs.get() + thread * largest;
    std::fill(own, own + width, 0);
    for (std::int64_t k = first; k < last; ++k) ++own[place[k]];
    const std::int64_t base = bucket << shift;
    std::int32_t begin = 0;
    for (std::int64_t c = 0; c < std::min(width, columns - base); ++c) {
      made.indptr[base + c] = first + begin;
      const std::int32_t count = own[c];
      own[c] = begin;
      begin += count;
    }
    for (std::int64_t k = first; k < last; ++k)
      ordered[own[place[k]]++] = {made.indices[k], made.perm[k]};
    for (std::int64_t k = first; k < last; ++k) {
      made.indices[k] = ordered[k - first].row;
      made.perm[k] = ordered[k - first].slot;
    }
  });
  made.indptr[columns] = nnz;
  return true;
}

}  // namespace

void transpose(const std::int64_t* indptr, const std::int32_t* indices, std::int64_t rows,
               std::int64_t columns, std::int64_t* t_indptr, std::int32_t* t_indices,
               std::int32_t* t_perm, int threads) {
  // What is written to at so few places, or is so little, needs no buckets.  Of these there are as
  // many as can be written to at a time, or so that each is worth its columns' ends.
  constexpr std::int64_t kFewColumns = 1 << 12, kFew = 1 << 20;
  constexpr std::int64_t kBuckets = 160, kLeastInBucket = 1 << 15;
  const std::int64_t nnz = indptr[rows];
  const Transposed made{t_indptr, t_indices, t_perm};
  prefer_large_pages(t_indices, nnz);
  prefer_large_pages(t_perm, nnz);
  if (columns > kFewColumns && nnz > kFew) {
    const std::int64_t buckets = std::min(nnz / kLeastInBucket, kBuckets);
    int shift = 0;
    while ((columns - 1) >> shift >= buckets) ++shift;
    if (shift <= 16 && transpose_by_buckets(indptr, indices, rows, columns, made, shift, threads))
      return;
  }
  // The ends in all parts take little beside the connections.
  const std::int64_t most = threads > 1 ? nnz / (4 * columns + 1) : 1;
  const std::int64_t parts = std::clamp<std::int64_t>(
      most, 1, std::min<std::int64_t>(parts_of(nnz), 4 * std::int64_t{threads}));
  transpose_by_counting(indptr, indices, rows, columns, made, parts, threads);
}

template <typename Word>
void scatter(const Word* values, const std::int64_t* indptr, const std::int32_t* indices,
             std::int64_t rows, std::int64_t columns, Word* dense, int threads) {
  for_rows(rows, rows * columns, threads, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      Word* const target = dense + row * columns;
      std::fill(target, target + columns, Word{0});
      for (std::int64_t k = indptr[row]; k < indptr[row + 1]; ++k) target[indices[k]] = values[k];
    }
  });
}

template <typename Word>
void gather(const Word* dense, const std::int64_t* indptr, const std::int32_t* indices,
            std::int64_t rows, std::int64_t columns, Word* values, int threads) {
  for_rows(rows, indptr[rows] - indptr[0], threads, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      const Word* const source = dense + row * columns;
      for (std::int64_t k = indptr[row]; k < indptr[row + 1]; ++k) values[k] = source[indices[k]];
    }
  });
}

template void scatter(const std::uint32_t*, const std::int64_t*, const std::int32_t*, std::int64_t,
                      std::int64_t, std::uint32_t*, int);
template void scatter(const std::uint64_t*, const std::int64_t*, const std::int32_t*, std::int64_t,
                      std::int64_t, std::uint64_t*, int);
template void gather(const std::uint32_t*, const std::int64_t*, const std::int32_t*, std::int64_t,
                     std::int64_t, std::uint32_t*, int);
template void gather(const std::uint64_t*, const std::int64_t*, const std::int32_t*, std::int64_t,
                     std::int64_t, std::uint64_t*, int);

void mark(const std::int64_t* indptr, const std::int32_t* indices, std::int64_t rows,
          std::int64_t columns, std::uint16_t* bits, int threads) {
  const std::int64_t words = bit_words(columns);
  for_rows(rows, rows * columns, threads, [=](std::int64_t first, std::int64_t last) {
    std::fill(bits + first * words, bits + last * words, std::uint16_t{0});
    for (std::int64_t row = first; row < last; ++row)
      for (std::int64_t k = indptr[row]; k < indptr[row + 1]; ++k)
        bits[row * words + indices[k] / 16] |= static_cast<std::uint16_t>(1u << indices[k] % 16);
  });
}

template <typename T>
void expand(const T* values, const std::int64_t* indptr, const std::uint16_t* bits,
            std::int64_t rows, std::int64_t columns, T* dense, int threads) {
  const auto kernel = product_kernels<T>().expand;
  for_rows(rows, rows * columns, threads, [=](std::int64_t first, std::int64_t last) {
    kernel({values + indptr[first], nullptr, indptr[last] - indptr[first], bits, dense, columns,
            first, last});
  });
}

template <typename T>
void compress(const T* dense, const std::int64_t* indptr, const std::uint16_t* bits,
              std::int64_t rows, std::int64_t columns, T* values, int threads) {
  const auto kernel = product_kernels<T>().compress;
  for_rows(rows, rows * columns, threads, [=](std::int64_t first, std::int64_t last) {
    kernel({nullptr, values + indptr[first], indptr[last] - indptr[first], bits,
            const_cast<T*>(dense), columns, first, last});
  });
}

#define REGROW_INSTANTIATE(T)                                                                    \
  template void expand(const T*, const std::int64_t*, const std::uint16_t*, std::int64_t,        \
                       std::int64_t, T*, int);                                                   \
  template void compress(const T*, const std::int64_t*, const std::uint16_t*, std::int64_t,      \
                         std::int64_t, T*, int);
REGROW_INSTANTIATE(float)
REGROW_INSTANTIATE(double)
#undef REGROW_INSTANTIATE

void check_structure(const std::int64_t* indptr, const std::int32_t* indices, std::int64_t rows,
                     std::int64_t columns, std::int64_t nnz) {
  if (indptr[0] != 0) fail("indptr[0] must be 0, got " + std::to_string(indptr[0]));
  for (std::int64_t row = 0; row < rows; ++row) {
    if (indptr[row + 1] < indptr[row])
      fail("indptr[" + std::to_string(row + 1) + "] must not be below the one before it, " +
           std::to_string(indptr[row]) + ", got " + std::to_string(indptr[row + 1]));
  }
  if (indptr[rows] != nnz)
    fail("indptr[" + std::to_string(rows) + "] must be the number of indices, " +
         std::to_string(nnz) + ", got " + std::to_string(indptr[rows]));
  const std::uint32_t limit = static_cast<std::uint32_t>(columns);
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t first = indptr[row], last = indptr[row + 1];
    if (first == last) continue;
    bool bad = static_cast<std::uint32_t>(indices[first]) >= limit;
    for (std::int64_t k = first + 1; k < last; ++k)
      bad |= (static_cast<std::uint32_t>(indices[k]) >= limit) | (indices[k] <= indices[k - 1]);
    if (bad) name_bad_index(indices, first, last, row, columns);
  }
}

}  // namespace regrow
