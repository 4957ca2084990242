#define REGROW_STRUCTURED structured_avx2
#define REGROW_VECTOR_BYTES 32
#define REGROW_VECTOR_REGISTERS 16
#include "structured.inl"
