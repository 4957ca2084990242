// The part of the Python module that draws, selects and rewires connections.
#pragma once

#include <nanobind/nanobind.h>

namespace regrow {

void bind_topology(nanobind::module_& m);

}  // namespace regrow
