# The C++ extension (native/module.cpp). Tensors are passed as addresses, and 0 stands for "none";
# regrow.kernels.native is the one module that calls it, and says what each argument means.

def linear_forward(
    itemsize: int,
    x: int,
    values: int,
    indptr: int,
    indices: int,
    bias: int,
    y: int,
    batch: int,
    n_in: int,
    n_out: int,
    nnz: int,
    threads: int,
    /,
) -> None: ...
def linear_backward(
    itemsize: int,
    grad: int,
    x: int,
    values: int,
    t_indptr: int,
    t_indices: int,
    t_perm: int,
    dx: int,
    dvalues: int,
    batch: int,
    n_in: int,
    n_out: int,
    nnz: int,
    threads: int,
    /,
) -> None: ...
def pair_products(
    itemsize: int,
    grad: int,
    x: int,
    rows: int,
    columns: int,
    products: int,
    batch: int,
    n_in: int,
    n_out: int,
    count: int,
    threads: int,
    /,
) -> None: ...
def transpose(
    indptr: int,
    indices: int,
    rows: int,
    columns: int,
    nnz: int,
    t_indptr: int,
    t_indices: int,
    t_perm: int,
    /,
) -> None: ...
def scatter(
    itemsize: int,
    values: int,
    indptr: int,
    indices: int,
    dense: int,
    rows: int,
    columns: int,
    nnz: int,
    threads: int,
    /,
) -> None: ...
def gather(
    itemsize: int,
    dense: int,
    indptr: int,
    indices: int,
    values: int,
    rows: int,
    columns: int,
    nnz: int,
    threads: int,
    /,
) -> None: ...
def check_structure(indptr: int, indices: int, rows: int, columns: int, nnz: int, /) -> None: ...
def isa() -> str: ...
def use_isa(name: str) -> None: ...
def supported_isas() -> list[str]: ...
