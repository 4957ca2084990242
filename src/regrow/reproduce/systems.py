"""The fifty published systems: what each is, and whether it works here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from regrow.training.errors import OptionError

if TYPE_CHECKING:
    from regrow.reproduce.recipe import Recipe

_LINES = {
    "afaf": "learns classes one after another, and reuses earlier neurons without touching them",
    "alacpd": "finds change points in a stream with an ensemble of sparse recurrent autoencoders",
    "anf": "agents whose rewired input layer learns to ignore features of pure noise",
    "batch-matrix-mlp": "every pass of a perceptron as a few matrix equations, without autograd",
    "building-energy": "schedules the appliances of buildings by deep reinforcement learning",
    "cl-dst": "which choices of sparse training serve one network that learns task after task",
    "ctre": "grows connections between neurons whose activations are alike, at extreme sparsity",
    "ddp-asr": "drops utterances and pieces of speech from the training data while it trains",
    "ds-td3": "actor and critic trained sparse from scratch, rewired as they learn",
    "dsn": "classifies time series with sparse kernels that find their own receptive fields",
    "dsp": "evolves rules of plasticity that learn from a reward at the end of an episode",
    "e2enet": "segments volumes with features fused over sparse connections between scales",
    "epal": "evolves a small table of Hebbian rules to learn, unlearn and relearn a task",
    "fantastic-weights": "which weights to drop in dynamic sparse training: a controlled study",
    "freetickets": "ensembles of sparse networks that together cost less than one dense network",
    "granet": "prunes gradually in training, and regrows as many where gradients are large",
    "hard-samples": "whether sparse networks learn hard, corrupted and scarce samples better",
    "ircl": "learns classes one after another with a generative model as its memory",
    "itop": "counts the weights ever active, and trains so that many are, each for long enough",
    "leccde": "trains networks without gradients, by differential evolution of each neuron",
    "limtr": "predicts motion on roads from maps, tracks and the laser points of each object",
    "lips": "federated averaging in which clients receive a model that is sparse for a while",
    "madi": "learns to mask what distracts an agent that sees pixels",
    "movae": "learns classes from one image each, with a small variational autoencoder a class",
    "neurofs": "selects features with labels: a sparse network that lets go of input neurons",
    "neuron-attribution": "selects features by the gradients of a sparse classifier in training",
    "neurotrails": "one trunk with several sparse heads that are trained together and averaged",
    "nnstd": "how far two sparse networks are apart, as graphs, and what that says about SET",
    "npsp": "evolves rules of plasticity that produce new behaviour without any reward",
    "pals": "finds the sparsity of a forecaster by itself, shrinking and growing as it trains",
    "quickselection": "selects features without labels, by the strength of an autoencoder's inputs",
    "r2n": "learns from preferences with rewired input layers that ignore noise",
    "random-pruning": "prunes at random before training: the baseline that rewiring must beat",
    "sam": "grows a small branch a task on a frozen, meta-learned attention network",
    "seft": "fine-tunes a pruned language model with sparse changes whose places evolve",
    "selfish-rnn": "recurrent networks whose gates compete for connections, with averaged SGD",
    "serena": "notices a new concept in a stream and gives it a sparse path of its own",
    "set": "sparse evolutionary training: drop the weights nearest zero, grow as many at random",
    "set-lstm": "classifies text with a sparse LSTM and a sparse embedding, rewired every epoch",
    "set-million": "SET on a million neurons, in memory and time linear in the connections",
    "set-neuron-pruning": "SET that also removes whole hidden neurons while it trains",
    "smet": "trains language models sparse, with an Adam that knows how old a connection is",
    "spacenet": "packs the connections of each task into few neurons, one task after another",
    "sparse-dc-scaling": "how the loss of sparse language models scales with data seen repeatedly",
    "sparse-diffusion": "diffusion models trained sparse from scratch",
    "sparse-theory-agents": "what agents need from sparse training, with smart grids as the case",
    "sup-tickets": "averages several sparse networks of one training into a better one",
    "truly-sparse-at-scale": "All-ReLU, importance pruning of neurons, parallel sparse training",
    "ugt": "a mask on a graph network that was never trained",
    "wast": "selects features without labels within a few passes, by attending to what matters",
}  # fmt: skip


@dataclass(frozen=True)
class System:
    """A published system.

    Attributes:
        name: As the command line takes it.
        line: What it does.
        works: Whether it can be reproduced here today.
    """

    name: str
    line: str
    works: bool

    @property
    def state(self) -> str:
        """``works`` or ``not yet``."""
        return "works" if self.works else "not yet"


def systems() -> Mapping[str, System]:
    """All fifty systems by name. One works when there is a recipe that reproduces it.

    Example:
        >>> len(systems()), systems()["itop"].state
        (50, 'works')
    """
    return {
        name: System(name, line, find_spec(_module(name)) is not None)
        for name, line in _LINES.items()
    }


def recipe_of(name: str) -> Recipe:
    """How to reproduce a system.

    Raises:
        OptionError: There is no such system, or it does not work yet.
        ImportError: It needs what the extra ``reproduce`` installs.
    """
    known = systems()
    working = ", ".join(system.name for system in known.values() if system.works)
    if name not in known:
        raise OptionError("NAME", f"be one of {working}", name)
    if not known[name].works:
        raise OptionError("NAME", f"be a system that works today, one of {working}", name)
    try:
        recipe: Recipe = import_module(_module(name)).RECIPE
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name} needs {error.name}, which comes with: pip install 'regrow[reproduce]'"
        ) from error
    return recipe


def _module(name: str) -> str:
    return f"regrow.reproduce.recipes.{name.replace('-', '_')}"
