"""Evolution: dropping and growing connections while a network learns."""

from regrow.evolution.engine import Evolution
from regrow.evolution.methods import Method, methods
from regrow.evolution.record import LayerUpdate, UpdateRecord

__all__ = ["Evolution", "LayerUpdate", "Method", "UpdateRecord", "methods"]
