// The kernels of weights with a structure, for one instruction set: as kernels.inl, whose rules hold
// here too.

#include <cstdint>

#include "structured_units.h"
#include "vectors.inl"
#include "blocks.inl"
#include "groups.inl"

namespace regrow {
namespace {

template <typename T>
constexpr StructuredKernels<T> structured_kernels() {
  return {kLanes<T>,       kBlockVectors, kGroupVectors, &block<T>, &panels<T>,
          &block_values<T>, &groups<T>,    &groups_backward<T>};
}

}  // namespace

extern const StructuredIsa REGROW_STRUCTURED = {structured_kernels<float>(),
                                                structured_kernels<double>()};

}  // namespace regrow
