"""Networks that are sparse from the first step on, as scikit-learn estimators."""

try:
    import scipy  # noqa: F401
    import sklearn  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"regrow.estimators needs scikit-learn and SciPy: pip install 'regrow[estimators]' "
        f"({error.name} is missing)",
        name=error.name,
    ) from None

from regrow.estimators.autoencoder import SparseAutoencoder
from regrow.estimators.classifier import SparseMLPClassifier
from regrow.estimators.rbm import SparseRBM
from regrow.estimators.regressor import SparseMLPRegressor

__all__ = ["SparseAutoencoder", "SparseMLPClassifier", "SparseMLPRegressor", "SparseRBM"]
