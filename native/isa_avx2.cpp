#define REGROW_ISA isa_avx2
#define REGROW_ISA_NAME "avx2"
#define REGROW_VECTOR_BYTES 32
#define REGROW_VECTOR_REGISTERS 16
#define REGROW_CONV conv_avx2
#include "kernels.inl"
#include "convolution.inl"
