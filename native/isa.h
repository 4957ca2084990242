// Choice of the instruction set at run time.
#pragma once

#include <string>
#include <vector>

#include "products.h"

namespace regrow {

// Instruction sets that this processor has and this build knows, best first.
std::vector<const Isa*> supported_isas();

// The one in use: the best, or what the environment variable REGROW_ISA names.
// Throws std::invalid_argument if that is not one of supported_isas().
const Isa& isa();

// Its kernels for these types: see products.h.
template <typename T, typename A = T>
const auto& product_kernels() {
  if constexpr (sizeof(A) == 2) {
    return isa().low;
  } else if constexpr (sizeof(T) == 4) {
    return isa().single;
  } else {
    return isa().wide;
  }
}

// Uses the named one from now on.  Throws as isa() does.
void use_isa(const std::string& name);

}  // namespace regrow
