#define REGROW_ISA isa_avx512
#define REGROW_ISA_NAME "avx512"
#define REGROW_VECTOR_BYTES 64
#define REGROW_VECTOR_REGISTERS 32
#define REGROW_CONV conv_avx512
#include "kernels.inl"
#include "convolution.inl"
