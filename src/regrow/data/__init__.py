"""Data sets behind names; CSV, Parquet, npz and IDX files."""

from regrow.data.dataset import Dataset
from regrow.data.errors import DataError
from regrow.data.given import from_arrays
from regrow.data.sources import SOURCES, load

__all__ = ["SOURCES", "DataError", "Dataset", "from_arrays", "load"]
