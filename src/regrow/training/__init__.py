"""Training from the command line or from Python: the loop, run directories, resuming, reports."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regrow.training.errors import DivergedError, OptionError, RunError, Stopped
    from regrow.training.options import TrainOptions
    from regrow.training.progress import BarProgress, LineProgress, Progress
    from regrow.training.run import RunResult, resume, train

__all__ = [
    "BarProgress",
    "DivergedError",
    "LineProgress",
    "OptionError",
    "Progress",
    "RunError",
    "RunResult",
    "Stopped",
    "TrainOptions",
    "resume",
    "train",
]

_HOMES = {
    "BarProgress": "progress",
    "DivergedError": "errors",
    "LineProgress": "progress",
    "OptionError": "errors",
    "Progress": "progress",
    "RunError": "errors",
    "RunResult": "run",
    "Stopped": "errors",
    "TrainOptions": "options",
    "resume": "run",
    "train": "run",
}


def __getattr__(name: str) -> Any:
    """Load a name on first use, so that `regrow train --help` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'regrow.training' has no attribute {name!r}")
    value = getattr(import_module(f"regrow.training.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
