#define REGROW_STRUCTURED structured_portable
#define REGROW_VECTOR_BYTES 16
#define REGROW_VECTOR_REGISTERS 16
#include "structured.inl"
