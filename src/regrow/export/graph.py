"""Models as ONNX files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regrow.export.dense import to_dense
from regrow.files import write_atomically


def save_onnx(
    model: nn.Module,
    example_input: Tensor | tuple[Any, ...],
    path: Path | str,
    *,
    sparse: bool = True,
    **options: Any,
) -> None:
    """Write a model as ONNX, as it computes in evaluation.

    Operators of ONNX know dense weights. With ``sparse``, a weight is stored as a sparse
    initialiser wherever that takes fewer bytes, and a runtime makes it dense when it loads the
    file: small files, dense arithmetic. ONNX Runtime takes both forms. The file is whole, or is
    not there.

    Args:
        model: With sparse layers or without; it is left alone.
        example_input: Input, or a tuple of inputs, to trace the model with.
        path: Of the file; its folder must exist.
        sparse: Whether weights are stored as sparse initialisers.
        **options: Further ones of ``torch.onnx.export``, such as ``dynamic_shapes``.

    Raises:
        ModuleNotFoundError: The packages of the extra ``export`` are not there.

    Example:
        >>> import regrow, tempfile
        >>> model = regrow.sparsify(nn.Sequential(nn.Linear(64, 32), nn.ReLU()), density=0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "model.onnx"
        ...     save_onnx(model, torch.ones(1, 64), path)
        ...     path.stat().st_size < 64 * 32 * 4
        True
    """
    import onnx

    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the exporter warns of is its own affair
        program = torch.onnx.export(
            to_dense(model).eval(), inputs, dynamo=True, verbose=False, **options
        )
    assert program is not None
    proto = program.model_proto
    if sparse:
        _store_sparse(proto.graph)
    onnx.checker.check_model(proto)
    written = proto.SerializeToString()
    write_atomically(Path(path), lambda file: file.write(written))


def _store_sparse(graph: Any) -> None:
    """Turn dense initialisers into sparse ones where these are smaller."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    for dense in list(graph.initializer):
        if dense.data_type not in (TensorProto.FLOAT, TensorProto.DOUBLE) or len(dense.dims) < 2:
            continue
        weight = numpy_helper.to_array(dense)
        positions = np.flatnonzero(weight).astype(np.int64)
        values = weight.reshape(-1)[positions]
        if not 0 < values.nbytes + positions.nbytes < weight.nbytes:
            continue
        stored = helper.make_sparse_tensor(
            _tensor(dense.name, dense.data_type, values),
            _tensor(f"{dense.name}_positions", TensorProto.INT64, positions),
            list(dense.dims),
        )
        graph.sparse_initializer.append(stored)
        graph.initializer.remove(dense)


def _tensor(name: str, kind: int, content: Any) -> Any:
    from onnx import helper

    return helper.make_tensor(name, kind, [len(content)], content.tobytes(), raw=True)
