"""scikit-learn's linear decompositions on brockett: `PCA`, `IncrementalPCA` and `TruncatedSVD`.

They are subclasses of scikit-learn's estimators of the same names with the same parameters and fitted attributes, so
they stand wherever those do: pipelines, searches, dataframes out, pickles. What is new is how they are fitted, and two
attributes that say how well: `residual_` and `method_`. Signs follow scikit-learn 1.5 and later: the entry of largest
magnitude of each component is positive.

>>> import numpy as np
>>> from brockett.integrations.sklearn import PCA
>>> X = np.array([[-1.0, -1.0], [-2.0, -1.0], [-3.0, -2.0], [1.0, 1.0], [2.0, 1.0], [3.0, 2.0]])
>>> PCA(n_components=1).fit(X).explained_variance_ratio_.round(4).tolist()
[0.9924]
"""

from __future__ import annotations

try:
    import sklearn.decomposition  # noqa: F401 – asked for first, so that its absence has a sentence
except ImportError as error:
    raise ImportError("brockett.integrations.sklearn needs scikit-learn: pip install 'brockett[sklearn]'") from error

from ._sklearn_incremental import IncrementalPCA
from ._sklearn_pca import PCA
from ._sklearn_truncated import TruncatedSVD

__all__ = ["PCA", "IncrementalPCA", "TruncatedSVD"]
