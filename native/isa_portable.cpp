#define REGROW_ISA isa_portable
#define REGROW_ISA_NAME "portable"
#define REGROW_VECTOR_BYTES 16
#define REGROW_VECTOR_REGISTERS 16
#define REGROW_CONV conv_portable
#include "kernels.inl"
#include "convolution.inl"
