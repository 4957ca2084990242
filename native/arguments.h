// Addresses and sizes as Python gives them, checked as far as that is possible in O(1).
#pragma once

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

namespace regrow {

using Size = std::int64_t;
using Address = std::uintptr_t;

constexpr Size kMost = std::numeric_limits<std::int32_t>::max();

inline void check_size(const char* name, Size size,
                       Size most = std::numeric_limits<Size>::max() / 64) {
  if (size < 0 || size > most)
    throw std::invalid_argument(std::string(name) + " must be in [0, " + std::to_string(most) +
                                "], got " + std::to_string(size));
}

// An array of `count` elements at an address that may be 0 only if it is empty.
template <typename T>
T* array(const char* name, Address address, Size count) {
  if (address == 0 && count > 0)
    throw std::invalid_argument(std::string(name) + " must have an address, got 0 for " +
                                std::to_string(count) + " elements");
  return reinterpret_cast<T*>(address);
}

template <typename T>
T* optional(Address address) {
  return reinterpret_cast<T*>(address);
}

// Calls `body` with a value of the type that has this many bytes.
template <typename Small, typename Large, typename F>
void with_type(int bytes, F&& body) {
  if (bytes == sizeof(Small)) return body(Small{});
  if (bytes == sizeof(Large)) return body(Large{});
  throw std::invalid_argument("itemsize must be 4 or 8, got " + std::to_string(bytes));
}

}  // namespace regrow
