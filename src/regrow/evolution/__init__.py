"""Evolution: dropping and growing connections while a network learns."""

from regrow.evolution.engine import Evolution, LayerUpdate, UpdateRecord
from regrow.evolution.methods import Method, methods

__all__ = ["Evolution", "LayerUpdate", "Method", "UpdateRecord", "methods"]
