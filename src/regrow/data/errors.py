"""The error of data that cannot be used."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be trained on, said in one sentence that a command line can print as it is.

    Example:
        >>> from regrow.data import load
        >>> load("digits", limit_test=0)
        Traceback (most recent call last):
        ...
        regrow.data.errors.DataError: limit_test must be at least 1, got 0
    """
