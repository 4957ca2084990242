"""Epochs of SET networks against the published code, on random data of the real data's shape.

    python benchmarks/epochs.py --reference DIR --json results/epochs.json
    python benchmarks/epochs.py --networks fashion-mnist      # without the published code

DIR holds, in folders of any names, what whoever runs this has fetched:
https://github.com/dcmocanu/sparse-evolutionary-artificial-neural-networks (SciPy; its product with
Cython, which is compiled here if Cython is installed) and
https://github.com/SelimaC/large-scale-sparse-neural-networks (SciPy; its product with numba). Both
are run as they are, by their own methods; of what they import, only modules that no longer exist
or that they do not use here are stood in for.

An epoch is timed as its steps during some seconds and one update of the topology, each after a
first one that warms up, and counted in full: steps of the epoch times seconds of a step, and one
update, which here includes the column order that would be built in the step after it. The networks
have epsilon 20 (3312-h-h-h-5: the lung data of the published code, batch 2), and rectified linear
units, which the sparse layers here apply themselves. The published code trains with momentum and
weight decay, and so does the network here, by torch's fused optimiser.

References: D. C. Mocanu et al., "Scalable training of artificial neural networks with adaptive
sparse connectivity inspired by network science", 2018; S. Curci, D. C. Mocanu, M. Pechenizkiy,
"Truly sparse neural networks at scale", 2021.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from torch import nn
from torch.nn import functional

import regrow
from regrow.kernels import native
from regrow.layers import share_layouts
from regrow.topology import allocate, random_topology


@dataclass(frozen=True)
class Network:
    """Sizes of the layers, and the data."""

    sizes: tuple[int, ...]
    rows: int
    batch: int

    @property
    def steps(self) -> int:
        """Training steps of an epoch."""
        return self.rows // self.batch


NETWORKS = {
    "fashion-mnist": Network((784, 1000, 1000, 1000, 10), 60_000, 128),
    "cifar-10": Network((3072, 4000, 1000, 4000, 10), 50_000, 128),
    "lung": Network((3312, 3000, 3000, 3000, 5), 135, 2),
    "lung-93k": Network((3312, 30_000, 30_000, 30_000, 5), 135, 2),
    "lung-900k": Network((3312, 300_000, 300_000, 300_000, 5), 135, 2),
}
EPSILON = 20


def seconds(step: Callable[[], object], update: Callable[[], object], least: float) -> Any:
    """Median seconds of a step and seconds of an update, each after one that warms up."""
    step()
    steps: list[float] = []
    while sum(steps) < least or len(steps) < 3:
        start = time.perf_counter()
        step()
        steps.append(time.perf_counter() - start)
    for _ in range(2):
        start = time.perf_counter()
        update()
        taken = time.perf_counter() - start
        step()
    return {"step": statistics.median(steps), "update": taken, "steps": len(steps)}


def own(network: Network, x: torch.Tensor, y: torch.Tensor, least: float) -> Any:
    """The network of this package, with SGD and SET."""
    sizes = network.sizes
    shapes = {str(i): (sizes[i + 1], sizes[i]) for i in range(len(sizes) - 1)}
    modules: list[nn.Module] = []
    for path, count in allocate(shapes, epsilon=EPSILON).items():
        n_out, n_in = shapes[path]
        if count == n_out * n_in:
            modules += [nn.Linear(n_in, n_out), nn.ReLU()]
        else:
            topology = random_topology((n_out, n_in), count)
            modules.append(regrow.SparseLinear(n_in, n_out, topology=topology, activation="relu"))
    assert isinstance(modules.pop(), nn.ReLU)  # the last layer has every connection
    model = nn.Sequential(*modules)
    share_layouts(model)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.0002, fused=True
    )
    evolution = regrow.Evolution(model, optimizer, method="set", every=1, until=10**9)

    def step() -> None:
        rows = slice(0, network.batch)
        functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return seconds(step, lambda: record.rewire(evolution), least)


def published_set(folder: Path, network: Network, x: Any, y: Any, least: float) -> Any:
    """The network of the SET repository."""
    module = loaded(folder / "set_mlp_sparse_data_structures.py", cython=True)
    hidden = [module.Relu] * (len(network.sizes) - 2)
    with contextlib.redirect_stdout(io.StringIO()):
        model = module.SET_MLP(network.sizes, (*hidden, module.Sigmoid), epsilon=EPSILON)
    model.loss = module.MSE(module.Sigmoid)
    return published(model, model.weightsEvolution_Amar, x, y, network, least)


def published_wasap(folder: Path, network: Network, x: Any, y: Any, least: float) -> Any:
    """The network of the WASAP repository, trained sequentially."""
    module = loaded(folder / "set_mlp_sequential.py")
    hidden = [module.Relu] * (len(network.sizes) - 2)
    with contextlib.redirect_stdout(io.StringIO()):
        model = module.SET_MLP(network.sizes, (*hidden, module.Softmax), epsilon=EPSILON)
    model.loss = module.CrossEntropy()
    return published(model, lambda: model.weights_evolution_II(0), x, y, network, least)


def published(
    model: Any, update: Callable[[], object], x: Any, y: Any, network: Network, least: float
) -> Any:
    """Steps and updates of a published network by its own methods."""
    model.learning_rate, model.momentum = 0.01, 0.9
    model.weight_decay, model.zeta = 0.0002, 0.3
    rows = slice(0, network.batch)

    def step() -> None:
        found = model._feed_forward(x[rows])
        model._back_prop(*found, y[rows])

    # Its updates say much, and leave files where they are called.
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        return seconds(step, update, least)


def loaded(path: Path, cython: bool = False) -> Any:
    """A published module, with stand-ins for what is gone from NumPy or is not needed."""
    sys.path.insert(0, str(path.parent))
    vars(np).setdefault("in1d", lambda a, b: np.isin(a, b).ravel())
    for name in ("wasap_sgd", "wasap_sgd.train", "wasap_sgd.train.monitor", "utils.load_data"):
        sys.modules.setdefault(name, types.ModuleType(name))
    vars(sys.modules["wasap_sgd.train.monitor"])["Monitor"] = object
    vars(sys.modules["utils.load_data"])["load_fashion_mnist_data"] = None
    if cython:
        pyximport = importlib.import_module("pyximport")
        pyximport.install(setup_args={"include_dirs": np.get_include()}, language_level=2)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arms(reference: Path | None) -> dict[str, Callable[..., Any]]:
    """What can be run: name to function of network, data, seconds."""
    found: dict[str, Callable[..., Any]] = {}
    if reference is None:
        return found
    for name, file, run in (
        ("published SET", "set_mlp_sparse_data_structures.py", published_set),
        ("published WASAP", "set_mlp_sequential.py", published_wasap),
    ):
        path = next(iter(sorted(reference.rglob(file))), None)
        if path is None:
            print(f"{name} is left out: there is no {file} in {reference}")
        else:
            found[name] = lambda *given, run=run, folder=path.parent: run(folder, *given)
    return found


def main() -> None:
    """Time every network with every code; print the table, write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, help="folder with the published code")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="steps are timed for so long, 3 at least"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    others = arms(options.reference)
    found = []
    for name in options.networks:
        network = NETWORKS[name]
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002  (the published code draws from it)
        x, y = torch.randn(256, network.sizes[0]), torch.randint(network.sizes[-1], (256,))
        times: dict[str, Any] = {}
        for threads in options.threads:
            torch.set_num_threads(threads)
            times[f"regrow, {threads} thread(s)"] = own(network, x, y, options.seconds)
        hot = functional.one_hot(y, network.sizes[-1]).double().numpy()
        for other, run in others.items():
            if other == "published WASAP" and max(network.sizes) > 10_000:
                print(f"{other} is left out for {name}: it makes dense matrices of the shape")
                continue
            wide = x.double().numpy() if other == "published SET" else x.numpy()
            try:
                times[other] = run(network, wide, hot.astype(wide.dtype), options.seconds)
            except (ImportError, MemoryError) as error:
                print(f"{other} is left out for {name}: {error}")
        for taken in times.values():
            taken["epoch"] = network.steps * taken["step"] + taken["update"]
        best = times[f"regrow, {options.threads[0]} thread(s)"]["epoch"]
        print(f"\n{name}: {'-'.join(map(str, network.sizes))}, {network.steps} steps an epoch")
        for other, taken in times.items():
            print(
                f"  {other:20} step {1e3 * taken['step']:9.2f} ms  update "
                f"{1e3 * taken['update']:9.1f} ms  epoch {taken['epoch']:9.2f} s"
                f"  = {taken['epoch'] / best:7.1f}x",
                flush=True,
            )
        found.append(
            {
                "network": name,
                "sizes": list(network.sizes),
                "batch": network.batch,
                "steps": network.steps,
                "times": times,
            }
        )
    record.write(
        options.json,
        {
            "epsilon": EPSILON,
            "seconds": options.seconds,
            "isa": native.isa() if native.available() else None,
        },
        {"networks": found},
    )


if __name__ == "__main__":
    main()
