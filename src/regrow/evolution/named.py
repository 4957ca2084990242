"""The named methods: compositions with their papers' defaults."""

from __future__ import annotations

from dataclasses import replace

from regrow.evolution.drop import adaptive_threshold
from regrow.evolution.grow import mean_momentum
from regrow.evolution.methods import Method, register
from regrow.evolution.schedules import Constant, Cosine, Cubic, Pals, Phases, Steps
from regrow.evolution.starts import FanInUniform, Normal
from regrow.topology import NofM

_SET = (
    "D. C. Mocanu, E. Mocanu, P. Stone, P. H. Nguyen, M. Gibescu, A. Liotta, "
    '"Scalable training of artificial neural networks with adaptive sparse connectivity '
    'inspired by network science", 2018'
)
_RIGL = (
    "U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen, "
    '"Rigging the lottery: making all tickets winners", 2020'
)
_ITOP = (
    "S. Liu, L. Yin, D. C. Mocanu, M. Pechenizkiy, "
    '"Do we actually need dense over-parameterization? In-time over-parameterization in sparse '
    'training", 2021'
)
_CTRE = (
    "Z. Atashgahi, J. Pieterse, S. Liu, D. C. Mocanu, R. Veldhuis, M. Pechenizkiy, "
    '"A brain-inspired algorithm for training highly sparse neural networks", 2022'
)
_MEST = (
    "G. Yuan et al., "
    '"MEST: accurate and fast memory-economic sparse training framework on the edge", 2021'
)

# Topologies that stay.

register(
    Method(
        name="static",
        every=None,
        source="S. Liu, T. Chen, X. Chen, L. Shen, D. C. Mocanu, Z. Wang, M. Pechenizkiy, "
        '"The unreasonable effectiveness of random pruning: return of the most naive baseline for '
        'sparse training", 2022',
        differs="numbers of connections are exact, not drawn by coin flips",
    )
)

# Random growth.

_set = register(
    Method(
        name="set",
        drop="sign-split",
        grow="random",
        fraction=Constant(0.3),
        every="epoch",
        start=Normal(0.1),
        regrow=True,
        source=_SET,
        differs="drops exactly the fraction (the published code also drops threshold ties); "
        "the final removal without growth is a call of its own, Evolution.prune()",
    )
)
register(
    replace(
        _set,
        name="set-zero",
        start="zero",
        differs="as the authors' Keras code, new values start at 0; that code also makes the "
        "optimiser anew every epoch",
    )
)
register(
    replace(
        _set,
        name="set-half",
        drop="sign-half",
        start="zero",
        fraction=Cosine(0.5, 0.005),
        every=800,
        source='A. I. Nowak, B. Grooten, D. C. Mocanu, J. Tabor, "Fantastic weights and how to '
        'find them: where to prune in dynamic sparse training", 2023',
        differs="half of what goes has each sign, as the paper says; the released selector keeps "
        "the most negative weights instead",
    )
)
_set_itop = register(
    Method(
        name="set-itop",
        drop="magnitude",
        grow="random",
        fraction=Cosine(0.5, 0.005),
        every=1500,
        regrow=True,
        source=_ITOP,
        differs="numbers of connections are exact: the published growth tosses a coin at every "
        "free position",
    )
)
register(
    replace(
        _set_itop,
        name="set-itop-unfired",
        grow="random-unfired",
        differs="numbers of connections are exact; an option of the published code",
    )
)
register(
    Method(
        name="mest",
        drop="mest",
        grow="random",
        fraction=Steps(0.2, 0.0, 2),
        every="epoch",
        regrow=True,
        source=_MEST,
        differs="the elastic mutation: prunes below the density and grows back to it; what mutates "
        "is a share of the connections, not of all positions, and the gradient counts as "
        "much as the weight (the published code has that off by default)",
    )
)
register(
    Method(
        name="mest-soft",
        drop="mest",
        grow="random",
        fraction=Steps(0.2, 0.0, 2),
        every="epoch",
        density=Steps(0.12, 0.1, 2),
        regrow=True,
        source=_MEST,
        differs="the soft memory bound: extra connections live between updates until the end; "
        "otherwise as mest",
    )
)
register(
    Method(
        name="dsr",
        drop=adaptive_threshold(1e-3, tolerance=0.1, rounds=1),
        grow="random",
        fraction=Constant(0.1),
        every=1000,
        redistribute="nonzero",
        regrow=True,
        source="H. Mostafa, X. Wang, "
        '"Parameter efficient training of deep convolutional neural networks by dynamic sparse '
        'reparameterization", 2019',
        differs="what is dropped aims at a share of the connections, not at a fixed number; no "
        "layer loses its last connection",
    )
)
register(
    Method(
        name="deepr",
        drop="sign-flip",
        grow="random",
        every=1,
        regrow=True,
        source="G. Bellec, D. Kappel, W. Maass, R. Legenstein, "
        '"Deep rewiring: training very sparse deep networks", 2018',
        differs="the noise and the L1 penalty of the gradient are the optimiser's, and left to it; "
        "a new connection takes the sign of its first step instead of a random one",
    )
)
register(
    Method(
        name="selfish-rnn",
        drop="magnitude",
        grow="random",
        fraction=Cosine(0.8, 0.005),
        every="epoch",
        regrow=True,
        source='S. Liu, D. C. Mocanu, Y. Pei, M. Pechenizkiy, "Selfish sparse RNN training", 2021',
        differs="numbers of connections are exact; its averaging optimiser is regrow.optim.SNTASGD",
    )
)
register(
    Method(
        name="smet",
        drop="magnitude",
        grow="random",
        fraction=Cosine(0.2, 0.005),
        every=100,
        regrow=False,
        source='Q. Xiao et al., "Memory-efficient LLM training with dynamic sparsity: from '
        'stability to practical scaling", 2026',
        differs="the topology alone; its optimiser is regrow.optim.LocalAgeAdam, and blocks are "
        "unit=Block(1, n)",
    )
)

# Growth by gradient.

_rigl = register(
    Method(
        name="rigl",
        drop="magnitude",
        grow="gradient",
        fraction=Cosine(0.3),
        every=100,
        until=25_000,
        regrow=True,
        source=_RIGL,
        differs="the update follows an optimiser step instead of replacing it",
    )
)
register(
    replace(
        _rigl,
        name="rigl-itop",
        fraction=Cosine(0.5, 0.005),
        every=4000,
        until=None,
        source=_ITOP,
        differs="among positions of equal gradient, also 0, only free ones grow",
    )
)
register(
    replace(
        _rigl,
        name="srigl",
        scope="row",
        compare="layer",
        pattern="fan-in",
        source="M. Lasby, A. Golubeva, U. Evci, M. Nica, Y. Ioannou, "
        '"Dynamic sparse training with structured sparsity", 2024',
        differs="no neuron is ablated",
    )
)
register(
    replace(
        _rigl,
        name="nm",
        scope=NofM(2, 4),
        pattern=NofM(2, 4),
        source='A. Mishra et al., "Accelerating sparse deep neural networks", 2021',
        differs="the pattern of that paper, evolved as RigL evolves: the groups change in training",
    )
)
register(
    Method(
        name="snfs",
        drop="magnitude",
        grow="momentum",
        fraction=Cosine(0.5),
        every="epoch",
        redistribute=mean_momentum,
        regrow=True,
        source="T. Dettmers, L. Zettlemoyer, "
        '"Sparse networks from scratch: faster training without losing performance", 2019',
        differs="momentum at free positions is formed from the passes of the last 20 steps; no "
        "dense buffer exists",
    )
)
register(
    Method(
        name="granet",
        drop="magnitude",
        grow="gradient",
        fraction=Cosine(0.5, 0.005),
        every=1000,
        density=Cubic(0.5, 0.1, by=0.5),
        redistribute="ranking",
        regrow=True,
        source="S. Liu et al., "
        '"Sparse training via boosting pruning plasticity with neuroregeneration", 2021',
        differs="pruning and regeneration are one update, so that what is pruned may grow again; "
        "the last step reaches the density exactly",
    )
)
register(
    Method(
        name="gmp",
        drop="magnitude",
        grow="random",
        fraction=Constant(0.0),
        every=1000,
        density=Cubic(1.0, 0.1, by=0.5),
        redistribute="ranking",
        source="M. Zhu, S. Gupta, "
        '"To prune, or not to prune: exploring the efficacy of pruning for model compression", '
        "2017",
        differs="weights are compared over all layers, as in later work; start at density 1 with "
        "full='sparse'",
    )
)
register(
    Method(
        name="pals",
        drop="magnitude",
        grow="gradient",
        fraction=Cosine(0.5, 0.005),
        every=20,
        density=Pals(),
        regrow="revive",
        source="Z. Atashgahi, M. Pechenizkiy, R. Veldhuis, D. C. Mocanu, "
        '"Adaptive sparsity level during training for efficient time series forecasting with '
        'transformers", 2024',
        differs="decides at Evolution.report(validation_loss) and acts at the next update; start "
        "at density 1 with full='sparse'",
    )
)
register(
    Method(
        name="ac-dc",
        drop="magnitude",
        grow="random",
        fraction=Constant(0.0),
        every=100,
        density=Phases(1.0, 0.1, 1000),
        redistribute="ranking",
        source="A. Peste, E. Iofinova, A. Vladu, D. Alistarh, "
        '"AC/DC: alternating compressed/decompressed training of deep neural networks", 2021',
        differs="weights come back at 0; phases are counted in steps, and none is set apart for "
        "the start",
    )
)
register(
    replace(
        _rigl,
        name="gse",
        grow="guided-gradient",
        source="M. Heddes, N. Srinivasa, T. Givargis, A. Nicolau, "
        '"Always-sparse training by growing connections with guided stochastic exploration", 2024',
        differs="in layers other than linear ones the sample is uniform",
    )
)
register(
    replace(
        _rigl,
        name="dst-ee",
        grow="exploring-gradient",
        source="S. Huang et al., "
        '"Dynamic sparse training via balancing the exploration-exploitation trade-off", 2023',
        differs="the bonus asks whether a position was ever active, not how often",
    )
)
register(
    Method(
        name="top-kast",
        drop="magnitude",
        grow="random",
        fraction=Cosine(0.3),
        every=100,
        regrow=True,
        active=0.5,
        source="S. Jayakumar, R. Pascanu, J. Rae, S. Osindero, E. Elsen, "
        '"Top-KAST: top-K always sparse training", 2020',
        differs="what is stored is the backward set, which changes by random growth; the penalty "
        "on what the forward pass leaves out is left to the loss",
    )
)

# Growth by activations.

_ctre = register(
    Method(
        name="ctre",
        drop="magnitude",
        grow="cosine",
        fraction=Constant(0.2),
        every="epoch",
        start=FanInUniform(6.0),
        regrow="replace",
        source=_CTRE,
        differs="similarities are those of a sample of the inputs of the last steps, unless "
        "Evolution.look() shows the whole training set; what grows at random lies outside what "
        "grows by similarity",
    )
)
register(
    replace(
        _ctre,
        name="ctre-seq",
        grow="cosine-until-plateau",
        regrow="revive",
        differs="similarities of a sample, as for ctre; random growth once the validation loss, "
        "told by Evolution.report(), has not fallen for 40 reports",
    )
)
register(
    replace(
        _ctre,
        name="cte",
        regrow="revive",
        differs="similarities of a sample, as for ctre; the ablation without random growth",
    )
)

# Whole neurons.

register(
    replace(
        _set,
        name="set-neuron-pruning",
        drop="neuron-pruning",
        grow="random-alive",
        source="S. Liu, D. C. Mocanu, M. Pechenizkiy, "
        '"On improving deep learning generalization with adaptive sparse connectivity", 2019',
        differs="the abstract alone was at hand: which neurons go, and when, is this project's "
        "choice; their connections grow again among those that stay",
    )
)
