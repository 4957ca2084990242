#define REGROW_STRUCTURED structured_avx512
#define REGROW_VECTOR_BYTES 64
#define REGROW_VECTOR_REGISTERS 32
#include "structured.inl"
