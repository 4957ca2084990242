#include "team.h"

#if defined(__linux__)

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

namespace regrow {
namespace {

using Clock = std::chrono::steady_clock;

// The entry point of a parallel region: function, its argument, threads, flags.
using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
std::atomic<Parallel> team{nullptr};

// The child of a fork has no threads, and the library would wait for them.
const int registered = pthread_atfork(nullptr, nullptr, [] { team = nullptr; });

// Calls for which the team is passed over after it has held one up; more each time it does.
constexpr int kLeastRest = 16, kMostRest = 1024;
std::atomic<int> rest{0}, next_rest{kLeastRest}, good{0};

bool resting() {
  if (rest.load(std::memory_order_relaxed) <= 0) return false;
  rest.fetch_sub(1, std::memory_order_relaxed);
  return true;
}

void judge(bool held_up) {
  if (held_up) {
    const int length = next_rest.load(std::memory_order_relaxed);
    rest.store(length, std::memory_order_relaxed);
    next_rest.store(std::min(2 * length, kMostRest), std::memory_order_relaxed);
    good.store(0, std::memory_order_relaxed);
  } else if (good.fetch_add(1, std::memory_order_relaxed) == 4 * kMostRest) {
    next_rest.store(kLeastRest, std::memory_order_relaxed);
  }
}

struct Region {
  std::int64_t units;
  void (*task)(void*, std::int64_t, int);
  void* context;
  std::thread::id caller = std::this_thread::get_id();
  Clock::time_point start = Clock::now();
  std::atomic<std::int64_t> next{0};
  std::atomic<int> slots{0};
  std::int64_t own_units = 0;
  Clock::time_point own_end{};

  void work() {
    const int slot = slots.fetch_add(1, std::memory_order_relaxed);
    std::int64_t mine = 0;
    for (std::int64_t unit; (unit = next.fetch_add(1, std::memory_order_relaxed)) < units; ++mine)
      task(context, unit, slot);
    if (std::this_thread::get_id() != caller) return;
    own_units = mine;
    own_end = Clock::now();
  }
  // Whether the caller waited for much longer than what another may still have had to do.
  bool held_up() const {
    if (own_units == 0) return false;
    const auto unit = (own_end - start) / own_units;
    return Clock::now() - own_end > 2 * unit + std::chrono::milliseconds(1);
  }
};

}  // namespace

bool use_team(const std::string& path) {
  void* const library = path.empty() ? nullptr : dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  void* const entry = library ? dlsym(library, "GOMP_parallel") : nullptr;
  team.store(reinterpret_cast<Parallel>(entry));
  return entry != nullptr;
}

bool run_on_team(std::int64_t units, int threads, void (*task)(void*, std::int64_t, int),
                 void* context) {
  const Parallel parallel = team.load(std::memory_order_relaxed);
  if (!parallel || resting()) return false;
  Region region{units, task, context};
  parallel([](void* region) { static_cast<Region*>(region)->work(); }, &region,
           static_cast<unsigned>(threads), 0);
  judge(region.held_up());
  return true;
}

}  // namespace regrow

#else

namespace regrow {

bool use_team(const std::string&) { return false; }

bool run_on_team(std::int64_t, int, void (*)(void*, std::int64_t, int), void*) { return false; }

}  // namespace regrow

#endif
