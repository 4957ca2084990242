"""Trained models for other programs: safetensors, CSR matrices, ONNX, plain dense modules."""

from regrow.export.dense import to_dense
from regrow.export.graph import save_onnx
from regrow.export.matrices import from_csr, to_scipy, to_torch_csr
from regrow.export.semi_structured import to_semi_structured
from regrow.export.storage import load_safetensors, save_safetensors

__all__ = [
    "from_csr",
    "load_safetensors",
    "save_onnx",
    "save_safetensors",
    "to_dense",
    "to_scipy",
    "to_semi_structured",
    "to_torch_csr",
]
