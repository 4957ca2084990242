"""Evolution inside the training loops of others: one class for each.

Import the one that is needed; each needs its package:
``regrow.training.callbacks.transformers``, ``.lightning``, ``.accelerate``.
"""
