#define REGROW_ISA isa_avx512
#define REGROW_ISA_NAME "avx512"
#define REGROW_VECTOR_BYTES 64
#define REGROW_VECTOR_REGISTERS 32
#include "kernels.inl"
