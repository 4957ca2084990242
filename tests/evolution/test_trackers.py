"""Numbers that follow their connections, places once seen, and values that rest."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow import Evolution, SparseLinear
from regrow.evolution import AGE, DropScore, GrowScore, Tracker


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model() -> nn.Sequential:
    layers = [SparseLinear(n, m, density=0.3, generator=seeded()) for n, m in ((8, 7), (7, 5))]
    return nn.Sequential(layers[0], nn.Tanh(), layers[1])


class Run:
    def __init__(self, seed: int = 0, **parts: object) -> None:
        self.model = model()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        parts = {"every": 2, "fraction": 0.4, **parts}
        self.evolution = Evolution(self.model, self.optimizer, seed=seed, **parts)
        self.at = 0

    def step(self):
        self.optimizer.zero_grad()
        self.model(torch.randn(6, 8, generator=seeded(self.at))).square().sum().backward()
        self.at += 1
        self.optimizer.step()
        return self.evolution.step()

    def layers(self) -> dict[str, SparseLinear]:
        return regrow.sparse_layers(self.model)


def spread(layer: SparseLinear, entries: Tensor) -> Tensor:
    dense = torch.full((layer.topology.shape.numel(),), torch.nan)
    return dense.index_put((layer.topology.positions,), entries.detach().float())


def test_age_counts_the_steps_of_every_connection() -> None:
    run = Run(drop=DropScore(lambda site: -site.age, tracks=(AGE,)), regrow=False)
    ages = {
        path: torch.where(m.topology.mask().view(-1), 0.0, torch.nan)
        for path, m in run.layers().items()
    }
    for _ in range(7):
        masks = {path: layer.topology.mask().view(-1) for path, layer in run.layers().items()}
        record = run.step()
        for path, layer in run.layers().items():
            ages[path] += 1
            now = layer.topology.mask().view(-1)
            if record is not None:
                oldest = ages[path][masks[path]].max()
                assert bool((ages[path][masks[path] & ~now] == oldest).any())
            ages[path][now & ~masks[path]] = 0
            ages[path][~now] = torch.nan
            found = spread(layer, run.evolution.sites()[path].age)
            assert torch.equal(found.nan_to_num(-1), ages[path].nan_to_num(-1))


def test_trackers_look_before_or_after_the_step() -> None:
    seen: dict[str, list[Tensor]] = {"before": [], "after": []}

    def look(name: str):
        def update(site, number):
            if site.path == "0":
                seen[name].append(site.values.clone())
            return number + site.grad.abs()

        return update

    trackers = tuple(Tracker(name, look(name), before=name == "before") for name in seen)
    run = Run(drop=DropScore(lambda site: site.tracked["before"], tracks=trackers), every=None)
    start = run.model[0].values.detach().clone()
    run.step()
    assert torch.equal(seen["before"][0], start)
    assert torch.equal(seen["after"][0], run.model[0].values)
    tracked = run.evolution.sites()["0"].tracked
    assert torch.equal(tracked["before"], run.model[0].values.grad.abs())
    assert torch.equal(tracked["before"], tracked["after"])


def test_a_tracker_of_another_size_and_two_of_one_name_are_refused() -> None:
    wrong = Tracker("wrong", lambda site, number: number[:1])
    run = Run(drop=DropScore(lambda site: site.values.abs(), tracks=(wrong,)))
    with pytest.raises(
        ValueError, match=r"tracker 'wrong' in 0 must have shape \(17,\), got \(1,\)"
    ):
        run.step()
    other = Tracker("wrong", lambda site, number: number)
    with pytest.raises(ValueError, match="must differ in name, got 'wrong' twice"):
        Run(
            drop=DropScore(lambda site: site.values.abs(), tracks=(wrong,)),
            grow=GrowScore(tracks=(other,)),
        )


def test_trackers_start_anew_where_others_change_the_topology() -> None:
    run = Run(drop=DropScore(lambda site: site.age, tracks=(AGE,)))
    for _ in range(3):
        run.step()
    other = model()
    other[0] = SparseLinear(8, 7, density=0.5, generator=seeded(5))
    run.model.load_state_dict(other.state_dict())
    sentence = "optimiser state 'momentum_buffer' of 0 must have an entry for each of 28 connec"
    with pytest.raises(ValueError, match=sentence):
        run.step()
    run.optimizer.state.clear()
    assert run.evolution.sites()["0"].age.tolist() == [0.0] * 28


@pytest.mark.parametrize("stop", [2, 3])
@pytest.mark.parametrize(
    "parts",
    [
        {"drop": DropScore(lambda site: -site.age, tracks=(AGE,))},
        {"grow": "random-unfired"},
        {"active": 0.5},
        {
            "grow": GrowScore(
                lambda site, candidates: site.gradient(candidates, decay=0.5).abs(),
                gradient=True,
                history=3,
            ),
            "every": 4,
        },
        {
            "grow": GrowScore(
                lambda site, c: (site.outputs.t() @ site.inputs)[c.rows, c.columns].abs(),
                activations=True,
            )
        },
    ],
)
def test_what_is_kept_survives_saving(parts: dict, stop: int) -> None:
    whole, first = Run(**parts), Run(**parts)
    for _ in range(stop):
        whole.step()
        first.step()
    buffer = io.BytesIO()
    saved = {"m": first.model, "o": first.optimizer, "e": first.evolution}
    torch.save({name: part.state_dict() for name, part in saved.items()}, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    second = Run(seed=9, **parts)
    second.model.load_state_dict(loaded["m"])
    second.optimizer.load_state_dict(loaded["o"])
    second.evolution.load_state_dict(loaded["e"])
    second.at = first.at
    for _ in range(6):
        assert whole.step() == second.step()
    for path, layer in whole.layers().items():
        assert layer.topology == second.layers()[path].topology
        assert torch.equal(layer.values, second.layers()[path].values)


def test_random_growth_takes_what_was_never_active_first() -> None:
    run = Run(grow="random-unfired", every=1, fraction=0.5)
    ever = {path: layer.topology.mask() for path, layer in run.layers().items()}
    for _ in range(9):
        masks = {path: layer.topology.mask() for path, layer in run.layers().items()}
        record = run.step()
        for path, layer in run.layers().items():
            now = layer.topology.mask()
            fresh = int((now & ~ever[path]).sum())
            assert fresh == min(record.layers[path].grown, int((~ever[path]).sum()))
            ever[path] |= now
            assert torch.equal(run.evolution.sites()[path].seen.mask(), ever[path])
        assert {path: int(m.sum()) for path, m in masks.items()} == {"0": 17, "2": 10}
    assert all(bool(mask.all()) for mask in ever.values())


# Values that rest


def test_passes_use_the_largest_values_and_train_all() -> None:
    run = Run(active=0.5, every=None)
    twin = model()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    full = {
        path: layer.values.detach().clone() for path, layer in regrow.sparse_layers(twin).items()
    }
    for at in range(4):
        # The oracle: the largest half of all values are used, and all have a gradient.
        optimizer.zero_grad()
        for path, layer in regrow.sparse_layers(twin).items():
            nnz = layer.topology.nnz
            mask = torch.zeros(nnz)
            mask[full[path].abs().topk(round(0.5 * nnz)).indices] = 1
            with torch.no_grad():
                layer.values.copy_(full[path] * mask)
            assert torch.equal(layer.values, run.layers()[path].values)
        twin(torch.randn(6, 8, generator=seeded(at))).square().sum().backward()
        for path, layer in regrow.sparse_layers(twin).items():
            with torch.no_grad():
                layer.values.copy_(full[path])
        optimizer.step()
        full = {path: m.values.detach().clone() for path, m in regrow.sparse_layers(twin).items()}
        run.step()


def test_resting_values_are_scored_in_updates() -> None:
    run = Run(active=0.5, every=1, fraction=0.2, drop="magnitude")
    for _ in range(5):
        record = run.step()
        for path, layer in run.layers().items():
            assert record.layers[path].dropped == round(0.2 * layer.topology.nnz)
            awake = int(layer.values.count_nonzero())
            assert awake <= round(0.5 * layer.topology.nnz)
    copy.deepcopy(run.model)
