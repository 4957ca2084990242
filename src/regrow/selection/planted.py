"""Tables of which it is known what matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import make_classification


@dataclass(frozen=True, eq=False)
class Planted:
    """A table with its truth.

    Attributes:
        table: float32 ``[rows, features]``, every feature with mean 0 and standard deviation 1.
        labels: int64 ``[rows]``.
        informative: Numbers of the features that decide the class.
        redundant: Numbers of the features that are mixtures of those.
    """

    table: NDArray[np.float32]
    labels: NDArray[np.int64]
    informative: NDArray[np.int64]
    redundant: NDArray[np.int64]

    @property
    def relevant(self) -> NDArray[np.int64]:
        """Informative and redundant features."""
        return np.concatenate([self.informative, self.redundant])

    def recall(self, ranking: NDArray[Any], k: int) -> float:
        """Share of the relevant features among the k best, of as many as fit.

        Args:
            ranking: Rank of every feature, 1 the best.
            k: How many of the best are looked at.
        """
        found = np.asarray(ranking)[self.relevant] <= k
        return float(found.sum() / min(k, len(self.relevant)))


def planted(
    rows: int,
    features: int,
    *,
    informative: int = 5,
    redundant: int = 15,
    classes: int = 2,
    clusters: int = 16,
    separation: float = 2.0,
    flipped: float = 0.01,
    seed: int = 0,
) -> Planted:
    """Draw a table like Madelon's: clusters at the corners of a cube, and noise all around.

    Every feature is standardised, so that no difference of spread gives the truth away, and the
    order of the features is random.

    Args:
        rows: Number of rows.
        features: Number of features, noise included.
        informative: Features that decide the class.
        redundant: Random linear mixtures of those.
        classes: Number of classes.
        clusters: Clusters of each class.
        separation: Half the side of the cube, in standard deviations of a cluster.
        flipped: Share of the rows whose label is drawn at random.
        seed: Of everything.

    Example:
        >>> data = planted(100, 50, informative=3, redundant=2, clusters=2)
        >>> data.table.shape, len(data.relevant)
        ((100, 50), 5)

    References:
        I. Guyon, S. Gunn, A. Ben-Hur, G. Dror, "Result analysis of the NIPS 2003 feature selection
        challenge", 2004.
    """
    table, labels = make_classification(
        rows,
        features,
        n_informative=informative,
        n_redundant=redundant,
        n_classes=classes,
        n_clusters_per_class=clusters,
        class_sep=separation,
        flip_y=flipped,
        shuffle=False,
        random_state=seed,
    )
    random = np.random.default_rng(seed)
    place = random.permutation(features)
    mixed = np.empty((rows, features), dtype=np.float32)
    spread = table.std(axis=0)
    mixed[:, place] = (table - table.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    order = random.permutation(rows)
    ends = informative, informative + redundant
    return Planted(
        mixed[order], labels[order].astype(np.int64), place[: ends[0]], place[ends[0] : ends[1]]
    )
