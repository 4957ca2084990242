// Work on several threads: torch's own where it has some, else a small pool of the process.
#pragma once

#include <algorithm>
#include <cstdint>

namespace regrow {

// Runs `task(context, unit, slot)` for every unit in [0, units) on up to `threads` threads, the
// caller among them, and returns when all are done.
//
// Units are taken from a counter.  `slot` is in [0, threads) and belongs to one thread for the length
// of the call.  Tasks must not throw.  Usable after fork() and until the process exits.
//
// In the pool an idle or descheduled worker holds nothing up: the caller waits only for units that
// some worker has begun.  A second caller at the same time works alone.
void run_parallel(std::int64_t units, int threads,
                  void (*task)(void* context, std::int64_t unit, int slot), void* context);

template <typename F>
void parallel(std::int64_t units, int threads, F&& body) {
  run_parallel(
      units, threads,
      [](void* context, std::int64_t unit, int slot) { (*static_cast<F*>(context))(unit, slot); },
      &body);
}

// Below this many elements a second thread costs more than it brings.
constexpr std::int64_t kElementsPerUnit = 1 << 16;

// In how many parts so much work is split: by its size alone, so that results are.
inline std::int64_t parts_of(std::int64_t elements) {
  return std::max<std::int64_t>(1, elements / kElementsPerUnit);
}

// Runs `body(part, first, last)` on equal parts of [0, size).
template <typename F>
void for_parts(std::int64_t parts, std::int64_t size, int threads, F&& body) {
  parallel(parts, threads, [&](std::int64_t part, int) {
    body(part, size * part / parts, size * (part + 1) / parts);
  });
}

}  // namespace regrow
