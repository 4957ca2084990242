// The threads that torch keeps for its own operators, borrowed.
#pragma once

#include <cstdint>
#include <string>

namespace regrow {

// Between its parallel operators torch's threads spin for milliseconds on the cores where threads of
// ours would have to run, so where there are such threads they are the ones to do our work.  The
// GNU OpenMP library at `path` must be loaded already; nothing is linked.  Without it, or with an
// empty path, there is no team.  Returns whether there is one.
bool use_team(const std::string& path);

// As run_parallel(), by the team.  Returns false, with nothing done, if there is none, in the child
// of a fork, or if it has lately held its callers up: it ends its work together, so where other
// processes hold the cores each use can cost a slice of the scheduler.
bool run_on_team(std::int64_t units, int threads,
                 void (*task)(void* context, std::int64_t unit, int slot), void* context);

}  // namespace regrow
