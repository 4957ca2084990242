// The Python module: raw addresses and sizes in, checked as far as that is possible in O(1).

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "arguments.h"
#include "convolution.h"
#include "driver.h"
#include "isa.h"
#include "module_structured.h"
#include "module_topology.h"
#include "structure.h"
#include "team.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using regrow::Backward;
using regrow::Forward;
using regrow::Pairs;
using regrow::Address;
using regrow::array;
using regrow::check_size;
using regrow::kMost;
using regrow::optional;
using regrow::Size;
using regrow::with_type;

void check_layer(Size batch, Size n_in, Size n_out, Size nnz) {
  check_size("n_in", n_in, kMost);
  check_size("n_out", n_out, kMost);
  check_size("nnz", nnz, kMost);
  check_size("batch", batch, std::numeric_limits<Size>::max() / 64 / (n_in + n_out + 64));
}

void check_range(const char* name, const Size* places, Size count, Size limit) {
  bool bad = false;
  for (Size k = 0; k < count; ++k) bad |= static_cast<std::uint64_t>(places[k]) >= limit + 0ull;
  for (Size k = 0; bad && k < count; ++k) {
    if (places[k] < 0 || places[k] >= limit)
      throw std::out_of_range(std::string(name) + "[" + std::to_string(k) + "] must be in [0, " +
                              std::to_string(limit) + "), got " + std::to_string(places[k]));
  }
}

// Calls `body` with a value of the type of the values, and one of the type of the activations.
template <typename F>
void with_types(int itemsize, bool low, F&& body) {
  if (!low) return with_type<float, double>(itemsize, [&](auto zero) { body(zero, zero); });
  if (itemsize != sizeof(float))
    throw std::invalid_argument("itemsize must be 4 beside bfloat16, got " + std::to_string(itemsize));
  body(float{}, regrow::BFloat16{});
}

void linear_forward(int itemsize, bool low, Address x, Address values, Address indptr,
                    Address indices, Address bias, Address y, bool rectified, bool x_by_features,
                    bool y_by_features, Size batch, Size n_in, Size n_out, Size nnz, int threads) {
  check_layer(batch, n_in, n_out, nnz);
  with_types(itemsize, low, [&](auto zero, auto activation) {
    using T = decltype(zero);
    using A = decltype(activation);
    regrow::run(Forward<T, A>{array<const A>("x", x, batch * n_in),
                              array<const T>("values", values, nnz),
                              array<const Size>("indptr", indptr, n_out + 1),
                              array<const std::int32_t>("indices", indices, nnz),
                              optional<const T>(bias), array<A>("y", y, batch * n_out), batch, n_in,
                              n_out, nnz, rectified, x_by_features, y_by_features},
                threads);
  });
}

void linear_backward(int itemsize, bool low, Address grad, Address y, Address x, Address values,
                     Address indptr, Address indices, Address t_indptr, Address t_indices,
                     Address t_perm, Address dx, Address dvalues, Address dbias, bool x_by_features,
                     bool grad_by_features, bool y_by_features, Size batch, Size n_in, Size n_out,
                     Size nnz, int threads) {
  check_layer(batch, n_in, n_out, nnz);
  with_types(itemsize, low, [&](auto zero, auto activation) {
    using T = decltype(zero);
    using A = decltype(activation);
    regrow::run(Backward<T, A>{array<const A>("grad", grad, batch * n_out), optional<const A>(y),
                               array<const A>("x", x, batch * n_in),
                               array<const T>("values", values, nnz),
                               array<const Size>("indptr", indptr, n_out + 1),
                               array<const std::int32_t>("indices", indices, nnz),
                               array<const Size>("t_indptr", t_indptr, n_in + 1),
                               array<const std::int32_t>("t_indices", t_indices, nnz),
                               array<const std::int32_t>("t_perm", t_perm, nnz),
                               optional<A>(dx), optional<T>(dvalues), optional<T>(dbias), batch,
                               n_in, n_out, nnz, x_by_features, grad_by_features,
                               y_by_features},
                threads);
  });
}

// The shape of a convolution as 22 numbers: see regrow.kernels.native.
regrow::ConvShape conv_shape(const std::vector<Size>& numbers) {
  if (numbers.size() != 22)
    throw std::invalid_argument("shape of a convolution must have 22 numbers, got " +
                                std::to_string(numbers.size()));
  regrow::ConvShape shape{numbers[0], numbers[1], numbers[2], numbers[3], {}, {}, {}, {}, {}, {}};
  check_size("n_out", shape.n_out, kMost);
  for (int axis = 0; axis < 3; ++axis) {
    shape.in[axis] = numbers[4 + axis];
    shape.out[axis] = numbers[7 + axis];
    shape.kernel[axis] = numbers[10 + axis];
    shape.stride[axis] = numbers[13 + axis];
    shape.dilation[axis] = numbers[16 + axis];
    shape.padding[axis] = numbers[19 + axis];
    check_size("stride", shape.stride[axis] - 1, kMost);
    check_size("dilation", shape.dilation[axis] - 1, kMost);
    check_size("padding", shape.padding[axis], kMost);
  }
  if (shape.groups < 1 || shape.channels % shape.groups != 0 || shape.n_out % shape.groups != 0)
    throw std::invalid_argument("groups must divide the channels, got " +
                                std::to_string(shape.groups));
  return shape;
}

void check_connections(const Size* indptr, Size rows, Size nnz) {
  if (indptr[rows] != nnz)
    throw std::invalid_argument("indptr[" + std::to_string(rows) + "] must be nnz, " +
                                std::to_string(nnz) + ", got " + std::to_string(indptr[rows]));
}

Size product_of(std::initializer_list<Size> sizes) {
  Size product = 1;
  for (const Size size : sizes) {
    check_size("size", size, kMost);
    check_size("size", product * size);
    product *= size;
  }
  return product;
}
Size input_size(const regrow::ConvShape& s) {
  return product_of({s.batch, s.channels, s.in[0], s.in[1], s.in[2]});
}
Size output_size(const regrow::ConvShape& s) {
  return product_of({s.batch, s.n_out, s.out[0], s.out[1], s.out[2]});
}

void conv_forward(int itemsize, Address x, Address values, Address indptr, Address indices,
                  Address bias, Address y, const std::vector<Size>& numbers, Size nnz,
                  int threads) {
  const regrow::ConvShape shape = conv_shape(numbers);
  check_size("nnz", nnz, kMost);
  check_connections(array<const Size>("indptr", indptr, shape.n_out + 1), shape.n_out, nnz);
  with_type<float, double>(itemsize, [&](auto zero) {
    using T = decltype(zero);
    regrow::run(regrow::ConvForward<T>{array<const T>("x", x, input_size(shape)),
                                       array<const T>("values", values, nnz),
                                       array<const Size>("indptr", indptr, shape.n_out + 1),
                                       array<const std::int32_t>("indices", indices, nnz),
                                       optional<const T>(bias),
                                       array<T>("y", y, output_size(shape)), shape},
                threads);
  });
}

void conv_backward(int itemsize, Address grad, Address x, Address values, Address indptr,
                   Address indices, Address dx, Address dvalues, const std::vector<Size>& numbers,
                   Size nnz, int threads) {
  const regrow::ConvShape shape = conv_shape(numbers);
  check_size("nnz", nnz, kMost);
  check_connections(array<const Size>("indptr", indptr, shape.n_out + 1), shape.n_out, nnz);
  with_type<float, double>(itemsize, [&](auto zero) {
    using T = decltype(zero);
    regrow::run(regrow::ConvBackward<T>{array<const T>("grad", grad, output_size(shape)),
                                        array<const T>("x", x, input_size(shape)),
                                        array<const T>("values", values, nnz),
                                        array<const Size>("indptr", indptr, shape.n_out + 1),
                                        array<const std::int32_t>("indices", indices, nnz),
                                        optional<T>(dx), optional<T>(dvalues), shape},
                threads);
  });
}

void pair_products(int itemsize, Address grad, Address x, Address rows, Address columns,
                   Address products, Size batch, Size n_in, Size n_out, Size count, int threads) {
  check_layer(batch, n_in, n_out, 0);
  check_size("count", count);
  check_range("rows", array<const Size>("rows", rows, count), count, n_out);
  check_range("columns", array<const Size>("columns", columns, count), count, n_in);
  with_type<float, double>(itemsize, [&](auto zero) {
    using T = decltype(zero);
    regrow::run(Pairs<T>{array<const T>("grad", grad, batch * n_out),
                         array<const T>("x", x, batch * n_in),
                         optional<const Size>(rows), optional<const Size>(columns),
                         array<T>("products", products, count), batch, n_in, n_out, count},
                threads);
  });
}

void transpose(Address indptr, Address indices, Size rows, Size columns, Size nnz, Address t_indptr,
               Address t_indices, Address t_perm, int threads) {
  check_layer(0, columns, rows, nnz);
  const Size* const starts = array<const Size>("indptr", indptr, rows + 1);
  check_connections(starts, rows, nnz);
  regrow::transpose(starts, array<const std::int32_t>("indices", indices, nnz), rows, columns,
                    array<Size>("t_indptr", t_indptr, columns + 1),
                    array<std::int32_t>("t_indices", t_indices, nnz),
                    array<std::int32_t>("t_perm", t_perm, nnz), threads);
}

void scatter(int itemsize, Address values, Address indptr, Address indices, Address dense,
             Size rows, Size columns, Size nnz, int threads) {
  check_layer(0, columns, rows, nnz);
  with_type<std::uint32_t, std::uint64_t>(itemsize, [&](auto zero) {
    using Word = decltype(zero);
    regrow::scatter(array<const Word>("values", values, nnz),
                    array<const Size>("indptr", indptr, rows + 1),
                    array<const std::int32_t>("indices", indices, nnz), rows, columns,
                    array<Word>("dense", dense, rows * columns), threads);
  });
}

void gather(int itemsize, Address dense, Address indptr, Address indices, Address values, Size rows,
            Size columns, Size nnz, int threads) {
  check_layer(0, columns, rows, nnz);
  with_type<std::uint32_t, std::uint64_t>(itemsize, [&](auto zero) {
    using Word = decltype(zero);
    regrow::gather(array<const Word>("dense", dense, rows * columns),
                   array<const Size>("indptr", indptr, rows + 1),
                   array<const std::int32_t>("indices", indices, nnz), rows, columns,
                   array<Word>("values", values, nnz), threads);
  });
}

void mark(Address indptr, Address indices, Address bits, Size rows, Size columns, Size nnz,
          int threads) {
  check_layer(0, columns, rows, nnz);
  regrow::mark(array<const Size>("indptr", indptr, rows + 1),
               array<const std::int32_t>("indices", indices, nnz), rows, columns,
               array<std::uint16_t>("bits", bits, rows * regrow::bit_words(columns)), threads);
}

void expand(int itemsize, Address values, Address indptr, Address bits, Address dense, Size rows,
            Size columns, Size nnz, int threads) {
  check_layer(0, columns, rows, nnz);
  with_type<float, double>(itemsize, [&](auto zero) {
    using T = decltype(zero);
    regrow::expand(array<const T>("values", values, nnz),
                   array<const Size>("indptr", indptr, rows + 1),
                   array<const std::uint16_t>("bits", bits, rows * regrow::bit_words(columns)),
                   rows, columns, array<T>("dense", dense, rows * columns), threads);
  });
}

void compress(int itemsize, Address values, Address indptr, Address bits, Address dense, Size rows,
              Size columns, Size nnz, int threads) {
  check_layer(0, columns, rows, nnz);
  with_type<float, double>(itemsize, [&](auto zero) {
    using T = decltype(zero);
    regrow::compress(array<const T>("dense", dense, rows * columns),
                     array<const Size>("indptr", indptr, rows + 1),
                     array<const std::uint16_t>("bits", bits, rows * regrow::bit_words(columns)),
                     rows, columns, array<T>("values", values, nnz), threads);
  });
}

void check_structure(Address indptr, Address indices, Size rows, Size columns, Size nnz) {
  check_layer(0, columns, rows, nnz);
  regrow::check_structure(array<const Size>("indptr", indptr, rows + 1),
                          array<const std::int32_t>("indices", indices, nnz), rows, columns, nnz);
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "C++ kernels of regrow: addresses and sizes only, see regrow.kernels.native.";
  using Unlocked = nb::call_guard<nb::gil_scoped_release>;
  m.def("linear_forward", &linear_forward, Unlocked());
  m.def("linear_backward", &linear_backward, Unlocked());
  m.def("conv_forward", &conv_forward, Unlocked());
  m.def("conv_backward", &conv_backward, Unlocked());
  m.def("pair_products", &pair_products, Unlocked());
  m.def("transpose", &transpose, Unlocked());
  m.def("scatter", &scatter, Unlocked());
  m.def("gather", &gather, Unlocked());
  m.def("mark", &mark, Unlocked());
  m.def("expand", &expand, Unlocked());
  m.def("compress", &compress, Unlocked());
  m.def("check_structure", &check_structure, Unlocked());
  regrow::bind_topology(m);
  regrow::bind_structured(m);
  m.def("isa", [] { return std::string(regrow::isa().name); });
  m.def("use_isa", &regrow::use_isa, "name"_a);
  m.def("use_team", &regrow::use_team, "path"_a);
  m.def("supported_isas", [] {
    std::vector<std::string> names;
    for (const regrow::Isa* isa : regrow::supported_isas()) names.emplace_back(isa->name);
    return names;
  });
}
