// The part of the Python module that computes with weights of a structure.
#pragma once

#include <nanobind/nanobind.h>

namespace regrow {

void bind_structured(nanobind::module_& m);

}  // namespace regrow
