// The part of the Python module that draws, selects and rewires connections.

#include "module_topology.h"

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "arguments.h"
#include "rewire.h"
#include "sample.h"
#include "select.h"

namespace nb = nanobind;

namespace regrow {
namespace {

[[noreturn]] void fail(const std::string& message) { throw std::invalid_argument(message); }

std::string number(Size n) { return std::to_string(n); }

Size positions_of(Size rows, Size columns) {
  check_size("rows", rows, kMost);
  check_size("columns", columns, kMost);
  return rows * columns;
}

void check_draw(Size count, Size total) {
  if (count < 0 || count > total)
    fail("count must be in [0, " + number(total) + "], got " + number(count));
}

const Size* pointers_at(Address indptr, Size rows, Size nnz) {
  check_size("rows", rows, kMost);
  check_size("nnz", nnz, kMost);
  const Size* const made = array<const Size>("indptr", indptr, rows + 1);
  if (made[0] != 0 || made[rows] != nnz || !std::is_sorted(made, made + rows + 1))
    fail("indptr must rise from 0 to " + number(nnz));
  return made;
}

// Everything that a walk along the rows relies on; the columns cost O(nnz) and are checked by the
// walks themselves where they index by them.
Rows rows_at(Address indptr, Address indices, Size rows, Size columns, Size nnz) {
  positions_of(rows, columns);
  return {pointers_at(indptr, rows, nnz), array<const std::int32_t>("indices", indices, nnz), rows,
          columns};
}

void check_rising(const char* name, const Size* numbers, Size count, Size limit, int threads) {
  if (count == 0) return;
  if (!rises(numbers, count, threads)) fail(std::string(name) + " must not fall");
  if (numbers[0] < 0 || numbers[count - 1] >= limit)
    fail(std::string(name) + " must be in [0, " + number(limit) + "), got " + number(numbers[0]) +
         " to " + number(numbers[count - 1]));
}

template <typename F>
void with_word(int bytes, F&& body) {
  if (bytes == 1) return body(std::uint8_t{});
  if (bytes == 2) return body(std::uint16_t{});
  if (bytes == 4) return body(std::uint32_t{});
  if (bytes == 8) return body(std::uint64_t{});
  fail("itemsize must be 1, 2, 4 or 8, got " + std::to_string(bytes));
}

void draw(Size total, Size count, std::uint64_t seed, Address numbers, int threads) {
  check_size("total", total, std::numeric_limits<Size>::max());
  check_draw(count, total);
  sample(total, count, seed, array<Size>("numbers", numbers, count), threads);
}

void draw_matrix(Size rows, Size columns, Size count, std::uint64_t seed, Address indptr,
                 Address indices, int threads) {
  check_draw(count, std::min(positions_of(rows, columns), kMost));
  sample_matrix(rows, columns, count, seed, array<Size>("indptr", indptr, rows + 1),
                array<std::int32_t>("indices", indices, count), threads);
}

bool rising(Address numbers, Size count, int threads) {
  check_size("count", count);
  return rises(array<const Size>("numbers", numbers, count), count, threads);
}

void free_at(Address indptr, Address indices, Size rows, Size columns, Size nnz, Address ranks,
             Size count, int threads) {
  const Rows taken = rows_at(indptr, indices, rows, columns, nnz);
  check_size("count", count);
  Size* const found = array<Size>("ranks", ranks, count);
  check_rising("ranks", found, count, rows * columns - nnz, threads);
  free_positions(taken, found, count, threads);
}

Size merge(Address indptr, Address indices, Size rows, Size columns, Size nnz, Address keep,
           Size kept, Address grown, Size count, Address new_indptr, Address new_indices,
           Address origin, int threads) {
  const Rows old = rows_at(indptr, indices, rows, columns, nnz);
  check_draw(kept, nnz);
  check_size("count", count, kMost);
  const auto* const added = array<const Size>("grown", grown, count);
  check_rising("grown", added, count, rows * columns, threads);
  const Size room = kept + count;
  check_size("connections", room, kMost);
  return rewire(old, array<const std::uint8_t>("keep", keep, nnz), kept, added, count,
                {array<Size>("new_indptr", new_indptr, rows + 1),
                 array<std::int32_t>("new_indices", new_indices, room),
                 array<std::int32_t>("origin", origin, room)},
                threads);
}

void pointers_kept(Address indptr, Size rows, Size nnz, Address keep, Address new_indptr,
                   int threads) {
  keep_pointers(pointers_at(indptr, rows, nnz), rows,
                array<const std::uint8_t>("keep", keep, nnz),
                array<Size>("new_indptr", new_indptr, rows + 1), threads);
}

void survivors(int itemsize, Address entries, Address keep, Size size, Size kept, Address out,
               int threads) {
  check_size("size", size);
  check_draw(kept, size);
  with_word(itemsize, [&](auto zero) {
    using Word = decltype(zero);
    compress(array<const Word>("entries", entries, size),
             array<const std::uint8_t>("keep", keep, size), size, kept,
             array<Word>("out", out, kept), threads);
  });
}

void moved(int itemsize, Address old, Size old_size, Address start, Size grown, Size step,
           Address origin, Size size, Address made, int threads) {
  check_size("size", size);
  check_size("old_size", old_size, kMost);
  check_size("grown", grown, kMost);
  check_size("step", step, 1);
  const auto* const origins = array<const std::int32_t>("origin", origin, size);
  bool right = true;
  with_word(itemsize, [&](auto zero) {
    using Word = decltype(zero);
    right = carry(array<const Word>("old", old, old_size), old_size,
                  array<const Word>("start", start, grown), grown, step, origins, size,
                  array<Word>("made", made, size), threads);
  });
  if (right) return;
  const auto [least, most] = std::minmax_element(origins, origins + size);
  fail("origin must be in [" + number(-grown) + ", " + number(old_size) + "), got " +
       number(*least) + " to " + number(*most));
}

void lowest(int itemsize, Address scores, Size size, Size count, Address keep, int threads) {
  check_size("size", size);
  check_draw(count, size);
  with_type<float, double>(itemsize, [&](auto zero) {
    using T = decltype(zero);
    drop_lowest(array<const T>("scores", scores, size), size, count,
                array<std::uint8_t>("keep", keep, size), threads);
  });
}

void nearest_zero(int itemsize, Address values, Size size, Size count, Address keep, int threads) {
  check_size("size", size, kMost);
  check_draw(count, size);
  with_type<float, double>(itemsize, [&](auto zero) {
    using T = decltype(zero);
    drop_nearest_zero(array<const T>("values", values, size), size, count,
                      array<std::uint8_t>("keep", keep, size), threads);
  });
}

// The best scores in arrays that the caller keeps between tiles.
template <typename T>
class Highest {
 public:
  Highest(Address scores, Address positions, Size capacity, Size count, Address indptr,
          Address indices, Size rows, Size columns, Size nnz)
      : best_{array<T>("scores", scores, capacity), array<Size>("positions", positions, capacity),
              capacity, count, 0, false, T{}},
        taken_(rows_at(indptr, indices, rows, columns, nnz)) {
    check_size("count", count, capacity - 1);
  }

  void offer(Address scores, Size first_row, Size last_row, int threads) {
    check_size("last_row", last_row, taken_.rows);
    check_size("first_row", first_row, last_row);
    const Size size = (last_row - first_row) * taken_.columns;
    regrow::offer(best_, ScoreRows<T>{array<const T>("scores", scores, size), taken_.indptr,
                                      taken_.indices, taken_.columns, first_row, last_row},
                  threads);
  }

  Size settle(int threads) {
    regrow::settle(best_, threads);
    return best_.size;
  }

 private:
  Best<T> best_;
  Rows taken_;
};

template <typename T>
void bind_highest(nb::module_& m, const char* name) {
  using Unlocked = nb::call_guard<nb::gil_scoped_release>;
  nb::class_<Highest<T>>(m, name)
      .def(nb::init<Address, Address, Size, Size, Address, Address, Size, Size, Size>())
      .def("offer", &Highest<T>::offer, Unlocked())
      .def("settle", &Highest<T>::settle, Unlocked());
}

}  // namespace

void bind_topology(nb::module_& m) {
  using Unlocked = nb::call_guard<nb::gil_scoped_release>;
  m.def("draw", &draw, Unlocked());
  m.def("draw_matrix", &draw_matrix, Unlocked());
  m.def("rises", &rising, Unlocked());
  m.def("free_positions", &free_at, Unlocked());
  m.def("rewire", &merge, Unlocked());
  m.def("keep_pointers", &pointers_kept, Unlocked());
  m.def("survivors", &survivors, Unlocked());
  m.def("carry", &moved, Unlocked());
  m.def("drop_lowest", &lowest, Unlocked());
  m.def("drop_nearest_zero", &nearest_zero, Unlocked());
  bind_highest<float>(m, "HighestFloat");
  bind_highest<double>(m, "HighestDouble");
}

}  // namespace regrow
