// The part of the Python module that computes with weights of a structure.

#include "module_structured.h"

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include "arguments.h"
#include "blocks.h"
#include "groups.h"

namespace nb = nanobind;

namespace regrow {
namespace {

void check_multiple(const char* name, Size size, const char* of, Size unit) {
  check_size(of, unit, kMost);
  if (unit < 1 || size % unit != 0)
    throw std::invalid_argument(std::string(name) + " must be a multiple of " + of + ", got " +
                                std::to_string(size) + " and " + std::to_string(unit));
}

BlockShape block_shape(Size batch, Size n_in, Size n_out, Size nnz, Size rows, Size columns) {
  check_size("n_in", n_in, kMost);
  check_size("n_out", n_out, kMost);
  check_size("nnz", nnz, kMost);
  check_size("batch", batch, std::numeric_limits<Size>::max() / 64 / (n_in + n_out + 64));
  check_multiple("n_out", n_out, "rows of a block", rows);
  check_multiple("n_in", n_in, "columns of a block", columns);
  check_size("size of a block", rows * columns, kMost);
  check_multiple("nnz", nnz, "size of a block", rows * columns);
  return {batch, n_in, n_out, nnz / (rows * columns)};
}

Blocks blocks_at(Address indptr, Address indices, const BlockShape& shape, Size rows,
                 Size columns) {
  const Blocks blocks{array<const Size>("indptr", indptr, shape.n_out / rows + 1),
                      array<const std::int32_t>("indices", indices, shape.blocks), rows, columns};
  check_blocks(blocks, shape);
  return blocks;
}

void block_forward(int itemsize, Address x, Address values, Address indptr, Address indices,
                   Address bias, Address y, Size batch, Size n_in, Size n_out, Size nnz, Size rows,
                   Size columns, int threads) {
  const BlockShape shape = block_shape(batch, n_in, n_out, nnz, rows, columns);
  const Blocks blocks = blocks_at(indptr, indices, shape, rows, columns);
  with_type<float, double>(itemsize, [&](auto zero) {
    using T = decltype(zero);
    run(BlockForward<T>{array<const T>("x", x, batch * n_in), array<const T>("values", values, nnz),
                        blocks, optional<const T>(bias), array<T>("y", y, batch * n_out), shape},
        threads);
  });
}

void block_backward(int itemsize, Address grad, Address x, Address values, Address indptr,
                    Address indices, Address t_indptr, Address t_indices, Address t_slots,
                    Address dx, Address dvalues, Size batch, Size n_in, Size n_out, Size nnz,
                    Size rows, Size columns, int threads) {
  const BlockShape shape = block_shape(batch, n_in, n_out, nnz, rows, columns);
  const Blocks blocks = blocks_at(indptr, indices, shape, rows, columns);
  TurnedBlocks turned{};
  if (dx != 0) {
    turned = {array<const Size>("t_indptr", t_indptr, n_in / columns + 1),
              array<const std::int32_t>("t_indices", t_indices, shape.blocks),
              array<const std::int32_t>("t_slots", t_slots, shape.blocks)};
    check_turned(blocks, turned, shape);
  }
  with_type<float, double>(itemsize, [&](auto zero) {
    using T = decltype(zero);
    run(BlockBackward<T>{array<const T>("grad", grad, batch * n_out),
                         array<const T>("x", x, batch * n_in),
                         array<const T>("values", values, nnz), blocks, turned, optional<T>(dx),
                         optional<T>(dvalues), shape},
        threads);
  });
}

Groups groups_at(Address places, Size batch, Size n_in, Size n_out, Size n, Size m) {
  check_size("n_in", n_in, kMost);
  check_size("n_out", n_out, kMost);
  check_size("batch", batch, std::numeric_limits<Size>::max() / 64 / (n_in + n_out + 64));
  check_multiple("n_in", n_in, "m", m);
  if (m > kGroupColumns || n < 1 || n > m)
    throw std::invalid_argument("n and m must be in [1, m] and [1, " +
                                std::to_string(kGroupColumns) + "], got " + std::to_string(n) +
                                " and " + std::to_string(m));
  const Size nnz = n_in / m * n * n_out;
  check_size("nnz", nnz, kMost);
  const Groups groups{array<const std::uint8_t>("places", places, nnz), n, m};
  check_places(groups, nnz);
  return groups;
}

void groups_forward(int itemsize, Address x, Address values, Address places, Address bias,
                    Address y, Size batch, Size n_in, Size n_out, Size n, Size m, int threads) {
  const Groups groups = groups_at(places, batch, n_in, n_out, n, m);
  with_type<float, double>(itemsize, [&](auto zero) {
    using T = decltype(zero);
    run(GroupsForward<T>{array<const T>("x", x, batch * n_in),
                         array<const T>("values", values, n_in / m * n * n_out), groups,
                         optional<const T>(bias), array<T>("y", y, batch * n_out), batch, n_in,
                         n_out},
        threads);
  });
}

void groups_backward(int itemsize, Address grad, Address x, Address values, Address places,
                     Address dx, Address dvalues, Size batch, Size n_in, Size n_out, Size n,
                     Size m, int threads) {
  const Groups groups = groups_at(places, batch, n_in, n_out, n, m);
  with_type<float, double>(itemsize, [&](auto zero) {
    using T = decltype(zero);
    run(GroupsBackward<T>{array<const T>("grad", grad, batch * n_out),
                          array<const T>("x", x, batch * n_in),
                          array<const T>("values", values, n_in / m * n * n_out), groups,
                          optional<T>(dx), optional<T>(dvalues), batch, n_in, n_out},
        threads);
  });
}

}  // namespace

void bind_structured(nb::module_& m) {
  using Unlocked = nb::call_guard<nb::gil_scoped_release>;
  m.def("block_forward", &block_forward, Unlocked());
  m.def("block_backward", &block_backward, Unlocked());
  m.def("groups_forward", &groups_forward, Unlocked());
  m.def("groups_backward", &groups_backward, Unlocked());
}

}  // namespace regrow
