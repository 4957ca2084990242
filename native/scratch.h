// Scratch memory and the size of the cache that it should stay in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace regrow {

inline std::int64_t level2_bytes() {
  static const std::int64_t bytes = [] {
    long size = 0;
#if defined(_SC_LEVEL2_CACHE_SIZE)
    size = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    return size > 0 ? std::int64_t{size} : std::int64_t{512} << 10;
  }();
  return bytes;
}

constexpr std::size_t kLargePage = std::size_t{2} << 20;

// Asks that memory which is written for the first time soon be made of large pages, as far as it holds
// whole ones: to get small ones, one by one, takes longer than to fill them.
inline void prefer_large_pages(void* memory, std::size_t bytes) {
#if defined(__linux__)
  const auto start = reinterpret_cast<std::uintptr_t>(memory);
  const std::uintptr_t first = (start + kLargePage - 1) / kLargePage * kLargePage;
  const std::uintptr_t last = (start + bytes) / kLargePage * kLargePage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  static_cast<void>(memory), static_cast<void>(bytes);
#endif
}
template <typename T>
void prefer_large_pages(T* memory, std::int64_t count) {
  prefer_large_pages(static_cast<void*>(memory), static_cast<std::size_t>(count) * sizeof(T));
}

// Scratch memory, kept by the calling thread between calls: fresh pages are slow to get.
class Scratch {
 public:
  template <typename T>
  T* get(std::int64_t count) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    Buffer& kept = cache();
    if (kept.bytes >= bytes) {
      buffer_ = std::move(kept);
      kept = Buffer{};
    } else {
      kept = Buffer{};
      buffer_ = fresh(bytes);
    }
    return static_cast<T*>(buffer_.data.get());
  }
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    if (buffer_.bytes <= kKeptBytes) cache() = std::move(buffer_);
  }

 private:
  // Operands are read in no order, and a page of 4 KiB holds few of their rows: where the system has
  // large pages, a buffer is made of these.
  static constexpr std::size_t kLine = 64;
  static constexpr std::size_t kKeptBytes = std::size_t{32} << 20;
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  struct Buffer {
    std::unique_ptr<void, Free> data;
    std::size_t bytes = 0;
  };
  static Buffer fresh(std::size_t bytes) {
    const bool large = bytes >= kLargePage / 4;
    const std::size_t unit = large ? kLargePage : kLine;
    Buffer buffer;
    buffer.bytes = (bytes + unit - 1) / unit * unit;
    buffer.data.reset(std::aligned_alloc(unit, buffer.bytes));
    if (!buffer.data && buffer.bytes > 0) throw std::bad_alloc();
    if (large) prefer_large_pages(buffer.data.get(), buffer.bytes);
    return buffer;
  }
  static Buffer& cache() {
    thread_local Buffer buffer;
    return buffer;
  }
  Buffer buffer_;
};

}  // namespace regrow
