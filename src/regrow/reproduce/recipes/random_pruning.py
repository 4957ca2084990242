"""Random pruning: a network pruned at random before training, layer by layer at good ratios.

S. Liu, T. Chen, X. Chen, L. Shen, D. C. Mocanu, Z. Wang, M. Pechenizkiy, "The unreasonable
effectiveness of random pruning: return of the most naive baseline for sparse training", 2022.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log2
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regrow import Grasp, Snip, sparse_layers
from regrow.data import Dataset
from regrow.layers.criteria import Criterion
from regrow.measure import calibration, detection, fgsm, pictures
from regrow.reproduce.networks import mlp
from regrow.reproduce.recipe import (
    Claim,
    Context,
    Figures,
    Outcomes,
    Part,
    Recipe,
    Scale,
    Table,
    part,
    tuned,
)
from regrow.training.fit import fit
from regrow.training.passes import connections, data_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATIOS = ("uniform", "uniform+", "erk", "erk+", "snip", "grasp")
ATTACKS = (2, 8)  # eps, in 255ths
PAPER = "S. Liu et al., 2022"
BOUND = "our bound"


@dataclass(frozen=True)
class Settings:
    """Sizes and lengths of the experiment."""

    data: str
    strange: str | None  # another data set, or None for the images with their pixels shuffled
    limit_train: int | None
    widths: tuple[int, ...]
    densities: tuple[float, ...]
    width_of_ratios: int
    densities_of_ratios: tuple[float, ...]
    epochs: int
    batch: int = 128
    rates: tuple[float, ...] = (0.1, 0.05, 0.02)


def accuracy(
    context: Context,
    width: int,
    density: float,
    ratio: str,
    positions: str,
    rate: float,
    seed: int,
) -> Figures:
    """Train one network whose topology never changes, and ask it all questions."""
    settings: Settings = context.settings
    data = context.load(settings.data, limit_train=settings.limit_train)
    judge = _judge(ratio, data, settings.batch, seed)
    model = mlp(
        [data.n_features, width, width, data.n_classes or 1],
        seed=seed,
        density=None if ratio == "dense" else density,
        allocation=judge or ratio,
        pattern="random" if positions == "random" else judge,
    )
    optimizer = torch.optim.SGD(
        model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    untested = replace(data, x_test=data.x_test[:0], y_test=data.y_test[:0])
    rows = fit(
        model,
        untested,
        optimizer,
        epochs=settings.epochs,
        batch_size=settings.batch,
        seed=seed,
        rate_schedule="step",
    )
    layers = sparse_layers(model)
    return {
        "validation": rows[-1]["validation"],
        "connections": connections(model),
        "densities": [
            layers[path].density if path in layers else 1.0
            for path, module in model.named_children()
            if path in layers or isinstance(module, nn.Linear)
        ],
        **_asked(model, data, _strange(context, data, seed)),
    }


def _judge(ratio: str, data: Dataset, batch: int, seed: int) -> Criterion | None:
    """SNIP looks at one batch, GraSP at 25 samples of each class in two halves."""
    order = data_order(len(data.x_train), seed, 0)
    if ratio == "snip":
        return Snip(cross_entropy, [_rows(data, order[:batch])])
    if ratio == "grasp":
        labels = data.y_train[order]
        chosen = torch.cat([order[labels == label][:25] for label in range(data.n_classes or 1)])
        halves = (chosen[0::2], chosen[1::2])
        return Grasp(cross_entropy, [_rows(data, half) for half in halves])
    return None


def _rows(data: Dataset, chosen: Tensor) -> tuple[Tensor, Tensor]:
    return data.x_train[chosen], data.y_train[chosen]


def _strange(context: Context, data: Dataset, seed: int) -> Tensor:
    """Test images of another kind, standardised as the known ones are."""
    if context.settings.strange is None:
        generator = torch.Generator().manual_seed(seed)
        return data.x_test[:, torch.randperm(data.n_features, generator=generator)]
    other = context.load(context.settings.strange, limit_train=10)
    assert data.pixel_scale is not None
    assert other.pixel_scale is not None
    (mean, deviation), (other_mean, other_deviation) = data.pixel_scale, other.pixel_scale
    return (other.x_test * other_deviation + other_mean - mean) / deviation


def _asked(model: nn.Module, data: Dataset, strange: Tensor) -> Figures:
    """Test accuracy, calibration, detection of strange images, and accuracy under attack."""
    model.eval()
    x, y, scale = data.x_test, data.y_test, data.pixel_scale or (0.0, 1.0)
    moved = {eps: fgsm(model, x, y, eps / 255, scale=scale) for eps in ATTACKS}
    with torch.no_grad():
        outputs = model(x)
        found = calibration(outputs, y)
        filled = found.counts >= 10  # what fewer samples say is noise
        return {
            "test": _right(outputs, y),
            "error": found.error,
            "log_loss": found.log_loss,
            "detection": detection(outputs, model(strange)),
            **{f"fgsm {eps}": _right(model(moved[eps]), y) for eps in ATTACKS},
            "confidence": found.confidence[filled].tolist(),
            "accuracy": found.accuracy[filled].tolist(),
        }


def _right(outputs: Tensor, y: Tensor) -> float:
    return (outputs.argmax(1) == y).double().mean().item()


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """Every width dense and sparse, then every ratio at one width."""
    for width in settings.widths:
        for arm in [_arm(width), *(_arm(width, d, "erk") for d in settings.densities)]:
            yield from tuned(accuracy, settings.rates, seeds, done, **arm)
    width = settings.width_of_ratios
    for density in settings.densities_of_ratios:
        first = _arm(width, density, "uniform")
        yield from tuned(accuracy, settings.rates, seeds, done, **first)
        if base := done.final.of(accuracy, **first):
            # All ratios train at the rate that is best for the uniform one.
            rate = base.found[0].arguments["rate"]
            arms = [_arm(width, density, ratio) for ratio in RATIOS[1:]]
            for arm in [*arms, _arm(width, density, "snip", "snip")]:
                yield from (part(accuracy, **arm, rate=rate, seed=seed) for seed in seeds)


def _arm(
    width: int, density: float = 1.0, ratio: str = "dense", positions: str = "random"
) -> dict[str, Any]:
    return {"width": width, "density": density, "ratio": ratio, "positions": positions}


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """Width, ratios, positions, and what the network knows about itself."""
    done = done.final
    wide, sparse = max(settings.widths), max(settings.densities)
    low = min(settings.densities_of_ratios)
    dense = done.of(**_arm(wide))
    kept = {density: done.of(**_arm(wide, density, "erk")) for density in settings.densities}
    found = []
    for density in settings.densities:
        gaps = [_gap(done, width, density) for width in settings.widths]
        correlation = float(spearmanr(settings.widths, gaps)[0])
        found.append(
            Claim(
                f"At density {density:g} the gap to dense falls with the width: rank correlation "
                f"at most -0.7",
                f"{correlation:+.2f}; gaps {', '.join(f'{gap:+.2f}' for gap in gaps)} points",
                correlation <= -0.7,
                BOUND,
            )
        )
    gap = _gap(done, wide, sparse)
    own = {ratio: _of_ratio(settings, done, low, ratio).mean("test") for ratio in RATIOS}
    gain = 100 * (max(own["erk"], own["snip"]) - own["uniform"])
    positions = {
        density: 100
        * (
            _of_ratio(settings, done, density, "snip", "snip").mean("test")
            - _of_ratio(settings, done, density, "snip").mean("test")
        )
        for density in settings.densities_of_ratios
    }
    return [
        *found,
        Claim(
            f"At width {wide} and density {sparse:g} the gap is at most 0.7 points",
            f"{gap:+.2f} points",
            gap <= 0.7,
            BOUND,
        ),
        Claim(
            f"At density {low:g} the ratios of ERK or SNIP are at least 0.3 points over uniform",
            f"{gain:+.2f} points (ERK {100 * (own['erk'] - own['uniform']):+.2f}, "
            f"SNIP {100 * (own['snip'] - own['uniform']):+.2f})",
            gain >= 0.3,
            BOUND,
        ),
        Claim(
            "With SNIP's ratios, SNIP's own places and random ones are within 1 point",
            "SNIP's places "
            + ", ".join(
                f"{d:+.2f} points (density {density:g})" for density, d in positions.items()
            ),
            all(abs(difference) <= 1 for difference in positions.values()),
            BOUND,
        ),
        Claim(
            f"At width {wide} the calibration error is at most 0.01 over that of dense",
            _beside(dense, kept, "error"),
            all(arm.mean("error") <= dense.mean("error") + 0.01 for arm in kept.values()),
            BOUND,
        ),
        *(
            Claim(
                f"At width {wide} {statement}",
                _beside(dense, kept, figure),
                all(sign * (arm.mean(figure) - dense.mean(figure)) > 0 for arm in kept.values()),
                PAPER,
            )
            for statement, figure, sign in (
                ("the log loss is below that of dense", "log_loss", -1),
                ("strange images are told apart better than by dense", "detection", 1),
                ("more is right under FGSM of 2/255 than with dense", "fgsm 2", 1),
                ("more is right under FGSM of 8/255 than with dense", "fgsm 8", 1),
            )
        ),
    ]


def _beside(dense: Outcomes, kept: dict[float, Outcomes], figure: str) -> str:
    own = [f"density {density:g} {arm.mean(figure):.4f}" for density, arm in kept.items()]
    return ", ".join([f"dense {dense.mean(figure):.4f}", *own])


def _gap(done: Outcomes, width: int, density: float) -> float:
    """Points by which the dense twin is ahead."""
    dense, sparse = done.of(**_arm(width)), done.of(**_arm(width, density, "erk"))
    return dense.ahead(sparse)


def _of_ratio(
    settings: Settings, done: Outcomes, density: float, ratio: str, positions: str = "random"
) -> Outcomes:
    return done.of(**_arm(settings.width_of_ratios, density, ratio, positions))


def tables(settings: Settings, done: Outcomes) -> list[Table]:
    """Widths; ratios; what the widest networks know."""
    done = done.final
    widths, ratios, known = [], [], []
    for width in settings.widths:
        dense = done.of(**_arm(width))
        cells = [f"{width}", _count(dense), dense.text("test", percent=True)]
        for density in settings.densities:
            arm = done.of(**_arm(width, density, "erk"))
            cells += [_count(arm), arm.text("test", percent=True)]
            cells += [f"{_gap(done, width, density):+.2f}"]
        widths.append(cells)
    for density in settings.densities_of_ratios:
        for ratio, places in [*((r, "random") for r in RATIOS), ("snip", "snip")]:
            arm = _of_ratio(settings, done, density, ratio, places)
            layers = np.mean(arm.values("densities"), axis=0)
            shares = ", ".join(f"{100 * share:.3g}" for share in layers)
            score = arm.text("test", percent=True)
            ratios.append([f"{density:g}", ratio, places, shares, score])
    wide = max(settings.widths)
    for named in (_arm(wide), *(_arm(wide, density, "erk") for density in settings.densities)):
        own = done.of(**named)
        shown = [own.text(figure, digits=4) for figure in ("error", "log_loss", "detection")]
        attacked = [own.text(f"fgsm {eps}", percent=True) for eps in ATTACKS]
        score = own.text("test", percent=True)
        known.append([f"{named['density']:g}", score, *shown, *attacked])
    heads = ["width", "weights", "dense, %"]
    for density in settings.densities:
        heads += ["weights", f"density {density:g}, %", "gap, points"]
    return [
        Table(f"Width ({settings.data}, test accuracy)", heads, widths),
        Table(
            f"Ratios at width {settings.width_of_ratios}",
            ["density", "ratios", "places", "density of the layers, %", "test accuracy, %"],
            ratios,
            "`er` equals `erk` where all layers are linear.",
        ),
        Table(
            f"What networks of width {wide} know",
            [
                "density",
                "test accuracy, %",
                "calibration error",
                "log loss",
                f"detection of {settings.strange or 'shuffled pixels'}",
                *(f"right under FGSM {eps}/255, %" for eps in ATTACKS),
            ],
            known,
        ),
    ]


def _count(arm: Outcomes) -> str:
    return f"{round(arm.mean('connections')):,}"


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """The gap against the width, and the reliability diagram of the widest networks."""
    done, wide = done.final, max(settings.widths)
    powers = [log2(width) for width in settings.widths]
    seeds = list(done.by("seed"))
    gaps = {
        f"density {density:g}": [
            (powers, [_gap(done.of(seed=seed), width, density) for width in settings.widths])
            for seed in seeds
        ]
        for density in settings.densities
    }
    arms = {"dense": _arm(wide)}
    arms |= {f"density {d:g}": _arm(wide, d, "erk") for d in settings.densities}
    reliable = {
        name: [(o.figures["confidence"], o.figures["accuracy"]) for o in done.of(**arm, seed=0)]
        for name, arm in arms.items()
    }
    reliable["ideal"] = [([0.0, 1.0], [0.0, 1.0])]
    return {
        "How far random pruning is behind dense": pictures.curves(
            gaps,
            title="How far random pruning is behind dense",
            subtitle=f"points of test accuracy, {settings.data}",
            x_label="width of the hidden layers, as a power of 2",
        ),
        f"Reliability at width {wide}": pictures.curves(
            reliable,
            title=f"Reliability at width {wide}",
            subtitle=f"share of right answers, {settings.data}, first seed",
            x_label="confidence",
            colours=pictures.arm_colours(list(arms)) | {"ideal": "faint"},
            percent=True,
        ),
    }


_SMALL = Settings(
    data="fashion-mnist",
    strange="mnist",
    limit_train=10_000,
    widths=(32, 64, 128, 256, 512, 1024),
    densities=(0.2, 0.1),
    width_of_ratios=512,
    densities_of_ratios=(0.05, 0.02),
    epochs=12,
)
_QUICK = Settings(
    data="digits",
    strange=None,
    limit_train=None,
    widths=(16, 32, 64, 128),
    densities=(0.2, 0.1),
    width_of_ratios=128,
    densities_of_ratios=(0.2, 0.1),
    epochs=20,
    rates=(0.05,),
)

RECIPE = Recipe(
    scales={
        "quick": Scale(_QUICK, seeds=1),
        "small": Scale(_SMALL, seeds=3, data=("fashion-mnist", "mnist")),
        "paper": Scale(_SMALL, missing="needs ResNets trained for 160 epochs on augmented CIFAR"),
    },
    parts=parts,
    claims=claims,
    tables=tables,
    pictures=draw,
)
