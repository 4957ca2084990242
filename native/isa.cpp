#include "isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace regrow {
namespace {

std::atomic<const Isa*> chosen{nullptr};

const Isa& find(const std::string& name, const char* source) {
  std::string names;
  for (const Isa* isa : supported_isas()) {
    if (name == isa->name) return *isa;
    names += (names.empty() ? "" : ", ") + std::string(isa->name);
  }
  throw std::invalid_argument(std::string(source) + " must be one of " + names +
                              " on this processor, got '" + name + "'");
}

}  // namespace

std::vector<const Isa*> supported_isas() {
  std::vector<const Isa*> isas;
#if defined(REGROW_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    isas.push_back(&isa_avx512);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) isas.push_back(&isa_avx2);
#endif
  isas.push_back(&isa_portable);
  return isas;
}

const Isa& isa() {
  const Isa* current = chosen.load(std::memory_order_relaxed);
  if (!current) {
    const char* name = std::getenv("REGROW_ISA");
    current = name && *name ? &find(name, "REGROW_ISA") : supported_isas().front();
    chosen.store(current, std::memory_order_relaxed);
  }
  return *current;
}

void use_isa(const std::string& name) { chosen.store(&find(name, "isa")); }

}  // namespace regrow
