"""Feature selection with sparse networks, as scikit-learn selectors."""

try:
    import scipy  # noqa: F401
    import sklearn  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"regrow.selection needs scikit-learn and SciPy: pip install 'regrow[selection]' "
        f"({error.name} is missing)",
        name=error.name,
    ) from None

from regrow.selection.attribution import NeuronAttribution
from regrow.selection.neurofs import NeuroFS
from regrow.selection.quickselection import QuickSelection
from regrow.selection.wast import WAST

__all__ = ["WAST", "NeuroFS", "NeuronAttribution", "QuickSelection"]
