"""Named methods against what their papers say, written down in plain dense torch with masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import regrow
from regrow import Evolution
from regrow.topology import NofM

RATE = 0.1


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Dense:
    """One layer of the dense account: weight after the step, gradient and mask of before it."""

    weight: Tensor
    gradient: Tensor
    mask: Tensor
    momentum: Tensor
    before: Tensor
    inputs: Tensor
    outputs: Tensor

    @property
    def nnz(self) -> int:
        return int(self.mask.sum())

    def without_lowest(self, count: int, score: Tensor | None = None) -> Tensor:
        """The mask less the lowest scores, |w| if none are given."""
        score = self.weight.abs() if score is None else score
        keep = self.mask.clone().view(-1)
        order = torch.where(self.mask, score, torch.inf).view(-1).argsort()
        keep[order[:count]] = False
        return keep.view_as(self.mask)

    def with_highest(self, keep: Tensor, count: int, score: Tensor | None = None) -> Tensor:
        """A mask and the highest scores outside it, |g| if none are given."""
        score = self.gradient.abs() if score is None else score
        order = torch.where(keep, -torch.inf, score).view(-1).argsort(descending=True)
        grown = keep.clone().view(-1)
        grown[order[:count]] = True
        return grown.view_as(keep)


class Run:
    """A sparse network in training, and the dense account of it beside."""

    def __init__(self, method: str, every: int = 1, pattern: object = "random", **options) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 8)).double()
        density = options.pop("density_at_start", 0.4)
        density = None if isinstance(pattern, NofM) else density
        self.model = regrow.sparsify(
            model, density, pattern=pattern, compute="csr", full="sparse", generator=seeded()
        )
        self.layers = list(regrow.sparse_layers(self.model).values())
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)
        self.evolution = Evolution(self.model, self.optimizer, method, every=every, **options)
        self.momentum = [torch.zeros(layer.topology.shape).double() for layer in self.layers]
        self.at = 0

    def step(self) -> tuple[list[Dense], regrow.evolution.UpdateRecord | None]:
        """The dense account of an optimiser step, and what the evolution did after it."""
        x = torch.randn(10, 12, generator=seeded(self.at), dtype=torch.float64)
        y = torch.randn(10, 8, generator=seeded(99 + self.at), dtype=torch.float64)
        self.at += 1
        masks = [layer.topology.mask() for layer in self.layers]
        weights = [layer.weight.detach().clone().requires_grad_() for layer in self.layers]
        hidden = F.linear(x, weights[0], self.layers[0].bias.detach()).tanh()
        out = F.linear(hidden, weights[1], self.layers[1].bias.detach())
        gradients = torch.autograd.grad((out - y).square().sum() / 10, weights)
        accounts = []
        for i, (w, g, mask) in enumerate(zip(weights, gradients, masks, strict=True)):
            self.momentum[i] = 0.9 * self.momentum[i] + g
            after = (w - RATE * g * mask).detach()
            ends = [(x, hidden.detach()), (hidden.detach(), out.detach())][i]
            accounts.append(Dense(after, g, mask, self.momentum[i], w.detach(), *ends))
        self.optimizer.zero_grad()
        ((self.model(x) - y).square().sum() / 10).backward()
        self.optimizer.step()
        return accounts, self.evolution.step()

    def masks(self) -> list[Tensor]:
        return [layer.topology.mask() for layer in self.layers]


def follow(run: Run, steps: int, rule: Callable[[list[Dense], float, int], list[Tensor]]) -> None:
    """Every update does what the rule says of the dense account."""
    for step in range(1, steps + 1):
        accounts, record = run.step()
        if record is None:
            continue
        expected = rule(accounts, record.fraction, step)
        for mask, wanted in zip(run.masks(), expected, strict=True):
            assert torch.equal(mask, wanted), step
        for layer, account in zip(run.layers, accounts, strict=True):
            both = layer.topology.mask() & account.mask
            found, before = layer.weight.detach()[both], account.weight[both]
            # What differs was dropped and grown again at once, and starts at zero.
            assert not found[~torch.isclose(found, before, rtol=1e-9, atol=1e-12)].any()


def rigl(accounts: list[Dense], fraction: float, step: int) -> list[Tensor]:
    masks = []
    for layer in accounts:
        count = min(round(fraction * layer.nnz), layer.mask.numel() - layer.nnz)
        masks.append(layer.with_highest(layer.without_lowest(count), count))
    return masks


@pytest.mark.parametrize("method", ["rigl", "rigl-itop"])
def test_rigl(method: str) -> None:
    follow(Run(method, every=2, until=20), 12, rigl)


def test_srigl_keeps_the_fan_in() -> None:
    def rule(accounts: list[Dense], fraction: float, step: int) -> list[Tensor]:
        masks = []
        for layer in accounts:
            keep = layer.without_lowest(round(fraction * layer.nnz))
            mask = keep.clone()
            for row in range(len(keep)):
                lost = int(layer.mask[row].sum() - keep[row].sum())
                free = torch.where(keep[row], -torch.inf, layer.gradient[row].abs())
                mask[row, free.topk(lost).indices] = True
            masks.append(mask)
        return masks

    run = Run("srigl", pattern="fan-in", until=20)
    fan_in = [layer.topology.degrees()[0] for layer in run.layers]
    follow(run, 8, rule)
    for layer, degrees in zip(run.layers, fan_in, strict=True):
        assert torch.equal(layer.topology.degrees()[0], degrees)


def test_groups_of_n_of_m_move_inside_themselves() -> None:
    run = Run("nm", pattern=NofM(2, 4), until=20, fraction=0.5)
    moved = 0
    for _ in range(6):
        accounts, _ = run.step()
        for layer, account in zip(run.layers, accounts, strict=True):
            groups = (
                part.reshape(-1, 4)
                for part in (
                    account.mask,
                    account.weight.abs(),
                    account.gradient.abs(),
                    layer.topology.mask(),
                )
            )
            for group, size, gradient, found in zip(*groups, strict=True):
                assert int(found.sum()) == 2
                wanted = group.clone()
                wanted[torch.where(group, size, torch.inf).argmin()] = False
                wanted[torch.where(wanted, -torch.inf, gradient).argmax()] = True
                if gradient.count_nonzero() == 4:  # else several are equal
                    assert torch.equal(found, wanted)
                    moved += int((found & ~group).sum())
    assert moved > 100


def pruned(accounts: list[Dense], total: int) -> list[int]:
    """Connections of each layer among the largest of all."""
    sizes = torch.cat([layer.weight.abs()[layer.mask] for layer in accounts])
    level = sizes.sort(descending=True).values[total - 1]
    return [int((layer.weight.abs()[layer.mask] >= level).sum()) for layer in accounts]


@pytest.mark.parametrize("method", ["granet", "gmp"])
def test_pruning_over_all_layers_then_regeneration_in_each(method: str) -> None:
    start = 0.5 if method == "granet" else 1.0
    run = Run(method, every=2, until=20, density_at_start=start)
    size = sum(layer.topology.shape.numel() for layer in run.layers)

    def rule(accounts: list[Dense], fraction: float, step: int) -> list[Tensor]:
        progress = min(1.0, step / 10)  # half of until
        density = 0.1 + (start - 0.1) * (1 - progress) ** 3
        masks = []
        for layer, left in zip(accounts, pruned(accounts, round(density * size)), strict=True):
            again = round(fraction * left)
            keep = layer.without_lowest(layer.nnz - left + again)
            masks.append(layer.with_highest(keep, again))
        return masks

    follow(run, 16, rule)
    assert sum(layer.topology.nnz for layer in run.layers) == round(0.1 * size)


def test_sparse_momentum_moves_connections_between_layers() -> None:
    run = Run("snfs", every=3, fraction=0.3)
    for step in range(1, 10):
        accounts, record = run.step()
        if record is None:
            continue
        gone = [round(0.3 * layer.nnz) for layer in accounts]
        weights = [float(layer.momentum.abs()[layer.mask].mean()) for layer in accounts]
        for layer, mask, lost, weight in zip(accounts, run.masks(), gone, weights, strict=True):
            keep = layer.without_lowest(lost)
            grown = int(mask.sum() - keep.sum())
            assert abs(grown - sum(gone) * weight / sum(weights)) <= 1, step
            assert torch.equal(mask, layer.with_highest(keep, grown, layer.momentum.abs()))
        run.momentum = [torch.zeros_like(m) for m in run.momentum]  # passes since the last update


def test_mest_drops_by_weight_and_gradient_before_the_step() -> None:
    run = Run("mest", until=20, fraction=0.3, regrow=False)
    for _ in range(6):
        accounts, record = run.step()
        assert record is not None
        for layer, mask in zip(accounts, run.masks(), strict=True):
            score = layer.before.abs() + layer.gradient.abs()
            keep = layer.without_lowest(round(0.3 * layer.nnz), score)
            assert torch.equal(mask & layer.mask, keep)
            assert int(mask.sum()) == layer.nnz


def cosine(layers: list[Dense]) -> Tensor:
    """Of all that went through one layer, step after step."""
    x, y = (torch.cat(part) for part in zip(*((d.inputs, d.outputs) for d in layers), strict=True))
    norms = y.norm(dim=0)[:, None] * x.norm(dim=0)
    return (y.t() @ x).abs() / torch.where(norms == 0, 1, norms)


def test_cte_grows_between_neurons_that_are_alike() -> None:
    run = Run("cte")
    past: list[list[Dense]] = [[], []]
    for _ in range(5):
        accounts, _ = run.step()
        for layer, account, held in zip(run.layers, accounts, past, strict=True):
            held.append(account)
            count = round(0.2 * account.nnz)
            wanted = account.with_highest(account.without_lowest(count), count, cosine(held))
            assert torch.equal(layer.topology.mask(), wanted)
            # Those dropped and chosen at once have kept their values.
            both = wanted & account.mask
            torch.testing.assert_close(layer.weight.detach()[both], account.weight[both])


def test_ctre_grows_others_for_those_just_dropped() -> None:
    run = Run("ctre")
    past: list[list[Dense]] = [[], []]
    replaced = 0
    for _ in range(5):
        accounts, _ = run.step()
        for layer, account, held in zip(run.layers, accounts, past, strict=True):
            held.append(account)
            count = round(0.2 * account.nnz)
            keep = account.without_lowest(count)
            alike = account.with_highest(keep, count, cosine(held))
            again = alike & account.mask & ~keep
            mask = layer.topology.mask()
            assert torch.equal(mask & alike, alike & ~again)
            assert int((mask & ~alike).sum()) == int(again.sum())
            assert not (mask & account.mask & ~keep).any()
            replaced += int(again.sum())
    assert replaced > 0


def test_ac_dc_goes_up_and_down() -> None:
    run = Run("ac-dc", every=2, density=regrow.evolution.schedules.Phases(1.0, 0.25, 4), until=16)
    size = sum(layer.topology.shape.numel() for layer in run.layers)
    for step in range(1, 17):
        accounts, record = run.step()
        if record is None:
            continue
        dense = step // 4 % 2 == 0 and step < 16
        total = sum(layer.topology.nnz for layer in run.layers)
        assert total == (size if dense else round(0.25 * size)), step
        if not dense and sum(account.nnz for account in accounts) > total:
            kept = pruned(accounts, total)
            for layer, account, left in zip(run.layers, accounts, kept, strict=True):
                assert torch.equal(
                    layer.topology.mask(), account.without_lowest(account.nnz - left)
                )


def test_pals_shrinks_by_its_factor_and_expands_again() -> None:
    run = Run("pals", density_at_start=1.0, until=100, fraction=0.5)
    size = sum(layer.topology.shape.numel() for layer in run.layers)
    run.evolution.report(1.0)
    nnz = [size]
    for loss in (1.0, 1.0, 1.0, 1.0, 1.0, 9.0, 1.0):
        run.step()
        nnz.append(sum(layer.topology.nnz for layer in run.layers))
        run.evolution.report(loss)
    for i in range(6):
        assert nnz[i + 1] == pytest.approx(nnz[i] * 0.95, abs=2)
    assert nnz[7] == pytest.approx(nnz[6] * 1.05, abs=2)


def test_deepr_drops_what_has_crossed_zero() -> None:
    run = Run("deepr", regrow=False)
    signs = [layer.weight.detach().sign() for layer in run.layers]
    crossed = 0
    first = True
    for _ in range(40):
        accounts, record = run.step()
        assert record is not None
        for i, (layer, account) in enumerate(zip(run.layers, accounts, strict=True)):
            if first:  # what a connection has after its first step is its sign
                signs[i] = account.weight.sign()
            sign = torch.where(signs[i] == 0, account.weight.sign(), signs[i]) * account.mask
            gone = account.mask & (account.weight * sign < 0)
            mask = layer.topology.mask()
            assert torch.equal(mask & account.mask, account.mask & ~gone)
            assert int(mask.sum()) == account.nnz
            crossed += int(gone.sum())
            signs[i] = torch.where(mask & account.mask, sign, 0)
        first = False
    assert crossed > 20


@pytest.mark.parametrize("name", sorted(regrow.methods()))
def test_defaults_are_in_range(name: str) -> None:
    method = regrow.methods()[name]
    until = 1000
    fraction = method.fraction if callable(method.fraction) else lambda *_: method.fraction
    assert all(0 <= fraction(step, until) <= 1 for step in range(0, until + 1, 50))
    if callable(method.density):
        assert all(0 < method.density(step, until) <= 1 for step in range(0, until + 1, 50))
