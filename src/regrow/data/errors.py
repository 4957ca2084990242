"""The error of data that cannot be used."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be trained on, said in one sentence that a command line can print as it is.

    Example:
        >>> from regrow.data import load
        >>> load("digitz")
        Traceback (most recent call last):
        ...
        regrow.data.errors.DataError: source must be one of digits, mnist, fashion-mnist or a path \
to a .csv, .csv.gz, .parquet or .npz file, got 'digitz'; did you mean 'digits'?
    """
