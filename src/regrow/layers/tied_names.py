"""What models of the package transformers write down about weights that they share."""

from __future__ import annotations

from torch import nn

from regrow.layers.base import SparseLayer

# The entries of a state dict that tied sparse layers have in common, as the name of a parameter
# and as the pattern by which transformers finds what need not be stored twice.
_PARAMETER = ".values"
_PATTERN = r"\.(values|indptr|indices)"


def settle_tied_names(model: nn.Module) -> None:
    """Bring the names of tied parameters in line with which layers are sparse now.

    Such a model lists its ties by names of parameters, ``lm_head.weight`` for one, and looks there
    when it is saved, so names must follow when layers become sparse or dense.
    """
    for module in model.modules():
        for attribute, ending in (
            ("_tied_weights_keys", _PATTERN),
            ("all_tied_weights_keys", _PARAMETER),
        ):
            names = getattr(module, attribute, None)
            if isinstance(names, dict) and names:
                settled = {
                    _settled(module, tied, ending): _settled(module, source, _PARAMETER)
                    for tied, source in names.items()
                }
                if settled != names:
                    setattr(module, attribute, settled)


def _settled(module: nn.Module, name: str, ending: str) -> str:
    for known in (".weight", _PARAMETER, _PATTERN):
        if name.endswith(known):
            path = name.removesuffix(known)
            try:
                sparse = isinstance(module.get_submodule(path), SparseLayer)
            except AttributeError:  # a pattern of the model's own
                return name
            return path + (ending if sparse else ".weight")
    return name
