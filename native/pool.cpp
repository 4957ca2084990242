#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

#include "team.h"

namespace regrow {
namespace {

// How long to spin before going to sleep: long enough to meet the next phase of one product.
constexpr auto kSpin = std::chrono::microseconds(20);

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

int current_cpu() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

template <typename Condition>
bool spin_until(Condition&& condition) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  for (;;) {
    for (int i = 0; i < 32; ++i) {
      if (condition()) return true;
      pause();
    }
    if (std::chrono::steady_clock::now() >= end) return false;
  }
}

// Kept alive by every thread that has seen it; `context` is touched only by one that got a unit,
// for which the caller waits.
struct Job {
  std::int64_t units;
  int threads;
  void (*task)(void*, std::int64_t, int);
  void* context;
  std::atomic<std::int64_t> next{0};
  std::atomic<std::int64_t> done{0};
  std::atomic<int> slots{1};  // the caller has slot 0
  std::atomic<int> caller_cpu{-1};
  std::mutex mutex;
  std::condition_variable finished;

  // Where no core is free, a worker may be put on that of the caller, whom it would only hold up.
  bool in_the_way(int slot) {
    const int cpu = current_cpu();
    if (slot == 0) caller_cpu.store(cpu, std::memory_order_relaxed);
    return slot != 0 && cpu >= 0 && cpu == caller_cpu.load(std::memory_order_relaxed);
  }
  void work(int slot) {
    std::int64_t mine = 0;
    while (!in_the_way(slot)) {
      const std::int64_t unit = next.fetch_add(1, std::memory_order_relaxed);
      if (unit >= units) break;
      task(context, unit, slot);
      ++mine;
    }
    if (mine > 0 && done.fetch_add(mine, std::memory_order_acq_rel) + mine == units) {
      std::lock_guard<std::mutex> lock(mutex);
      finished.notify_one();
    }
  }
  bool complete() const { return done.load(std::memory_order_acquire) == units; }
  void wait() {
    if (spin_until([this] { return complete(); })) return;
    std::unique_lock<std::mutex> lock(mutex);
    finished.wait(lock, [this] { return complete(); });
  }
};

class Pool {
 public:
  void run(const std::shared_ptr<Job>& job) {
    job->caller_cpu.store(current_cpu(), std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      start_workers(job->threads - 1);
      job_ = job;
      epoch_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    job->work(0);
    job->wait();
    std::lock_guard<std::mutex> lock(mutex_);
    job_.reset();
  }

  bool acquire() { return !busy_.test_and_set(std::memory_order_acquire); }
  void release() { busy_.clear(std::memory_order_release); }

 private:
  void start_workers(int wanted) {
    try {
      for (; workers_ < wanted; ++workers_) std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
      // No more threads to be had: the caller and those that exist do the work.
    }
  }

  [[noreturn]] void serve() {
    std::uint64_t seen = 0;
    bool expectant = false;
    for (;;) {
      const auto changed = [&] { return epoch_.load(std::memory_order_acquire) != seen; };
      if (expectant) spin_until(changed);
      std::shared_ptr<Job> job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, changed);
        seen = epoch_.load(std::memory_order_relaxed);
        job = job_;
      }
      if (!job) continue;
      const int slot = job->slots.fetch_add(1, std::memory_order_relaxed);
      if (slot < job->threads) job->work(slot);
      expectant = !job->in_the_way(slot);
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::shared_ptr<Job> job_;
  std::atomic<std::uint64_t> epoch_{0};
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  int workers_ = 0;
};

// Never destroyed: workers may still wait on it while the process exits.
std::atomic<Pool*> pool{new Pool};

#if defined(__unix__) || defined(__APPLE__)
// The child of a fork has no workers, and may have inherited locked mutexes.
const int registered = pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
#endif

}  // namespace

void run_parallel(std::int64_t units, int threads, void (*task)(void*, std::int64_t, int),
                  void* context) {
  // All of torch's threads or none: it would end those that are left out.
  if (threads > 1 && units > 1 && run_on_team(units, threads, task, context)) return;
  if (threads > units) threads = static_cast<int>(units);
  if (threads > 1) {
    Pool& shared = *pool.load();
    if (shared.acquire()) {
      auto job = std::make_shared<Job>();
      job->units = units;
      job->threads = threads;
      job->task = task;
      job->context = context;
      shared.run(job);
      shared.release();
      return;
    }
  }
  for (std::int64_t unit = 0; unit < units; ++unit) task(context, unit, 0);
}

}  // namespace regrow
