"""``PartFeatures``: a transformer of scikit-learn from images to tables of their parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from partzoo.discovery.factory import finder_of, inference_model, make_finder
from partzoo.discovery.finder import Finder
from partzoo.discovery.kept import Kept
from partzoo.discovery.labeller import Labeller
from partzoo.discovery.pipeline import fitted, label_images
from partzoo.errors import MissingExtraError, ShapeError, UsageError
from partzoo.images.opening import OpenedImages, open_images
from partzoo.matching import embed_parts
from partzoo.models.base import Model
from partzoo.parts.parts import Parts

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise MissingExtraError('sklearn is not installed: pip install "partzoo[eval]".') from error

LAYOUT = ("share", "x", "y")


class PartFeatures(TransformerMixin, BaseEstimator):
    """Describe each image by its parts, in a row of a table.

    ``fit`` learns a vocabulary of k parts from images of one kind of object, so that a column is about the same part in
    every image. For each part, the columns are its share of the image's pixels; the x and y of its centroid relative to
    the image's centre, from -0.5 to 0.5; and, with ``embeddings``, its embedding (:func:`partzoo.embed_parts`; of a
    learned part model, the model's descriptor of the part). All are zero for parts that an image does not have.

    Args:
        k: number of parts; None uses all parts of a learned part model, and 8 with an encoder.
        model, background, size, seed, device: as for :func:`partzoo.discover_parts`.
        refine: whether to align the parts with the image's edges.
        embeddings: whether to add the embeddings, which need the encoder twice more.

    Attributes:
        vocabulary_: the :class:`partzoo.PartVocabulary`.
        n_features_out_: number of columns.
    """

    def __init__(
        self,
        k: int | None = 8,
        *,
        model: Any = None,
        background: Any = "auto",
        size: int | None = None,
        refine: bool = True,
        seed: int = 0,
        device: Any = None,
        embeddings: bool = True,
    ) -> None:
        self.k = k
        self.model = model
        self.background = background
        self.size = size
        self.refine = refine
        self.seed = seed
        self.device = device
        self.embeddings = embeddings

    def fit(self, X: Any, y: Any = None) -> PartFeatures:
        """Learn the vocabulary.

        Args:
            X: images, in any form that :func:`partzoo.discover_parts` accepts for many; also a table of one column.
            y: not used.

        Raises:
            ImageError: an image cannot be read.
            UsageError: an argument is invalid.
        """
        self._fit(_images(X), None)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Describe images.

        Args:
            X: images, as for :meth:`fit`.

        Returns:
            ``(n, n_features_out_)`` float32; :meth:`get_feature_names_out` names the columns.

        Raises:
            NotFittedError: there is no vocabulary yet.
            ImageError: an image cannot be read.
        """
        check_is_fitted(self, "vocabulary_")
        return self._table(_images(X), finder_of(self.vocabulary_, self.model, self.device), Kept())

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> np.ndarray:
        """Learn the vocabulary and describe the same images, encoding each only once for the parts."""
        images, kept = _images(X), Kept()
        return self._table(images, self._fit(images, kept), kept)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns, such as ``part1_share`` and ``part1_e0``; the argument is not used."""
        check_is_fitted(self, "vocabulary_")
        k = self.vocabulary_.k
        columns = [*LAYOUT, *(f"e{i}" for i in range(self.n_features_out_ // k - len(LAYOUT)))] if k else []
        return np.array([f"part{part}_{column}" for part in range(1, k + 1) for column in columns], dtype=object)

    def _fit(self, images: OpenedImages, kept: Kept | None) -> Finder:
        finder = make_finder(self.model, self.background, self.size, self.refine, self.device)
        k = finder.asked(self.k)
        self.vocabulary_ = fitted(finder, images, [k], [self.seed], kept=kept)[k, self.seed]
        width = 0
        if self.embeddings:
            ((_, first),) = label_images(finder, images[:1], self.vocabulary_, [None])
            width = self._embedded(first, self._encoder()).shape[1]
        self.n_features_out_ = self.vocabulary_.k * (len(LAYOUT) + width)
        return finder

    def _table(self, images: OpenedImages, finder: Labeller, kept: Kept) -> np.ndarray:
        encoder = self._encoder()  # before the threads, since loading one changes torch's random numbers

        def row_of(_: int, parts: Parts) -> np.ndarray:
            height, width = parts.size
            places = (parts.centroids + 0.5) / (width, height) - 0.5
            columns = [parts.areas[:, None] / (height * width), np.nan_to_num(places)]
            if self.embeddings:
                columns.append(self._embedded(parts, encoder))
            return np.concatenate(columns, axis=1).ravel()

        table = np.empty((len(images), self.n_features_out_), np.float32)
        for index, row in label_images(finder, images, self.vocabulary_, [None] * len(images), kept=kept, then=row_of):
            table[index] = row
        return table

    def _encoder(self) -> Model | None:
        """Return the encoder of the embeddings, or None if they come from elsewhere or there are none."""
        if not self.embeddings or self.vocabulary_.learned:
            return None
        return inference_model(self.model, self.device)

    def _embedded(self, parts: Parts, encoder: Model | None) -> np.ndarray:
        if encoder is not None:
            return embed_parts(parts, model=encoder, size=self.size)
        descriptors = np.asarray(parts.descriptors)
        return descriptors * (parts.areas > 0)[:, None]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.no_validation = True
        return tags


def _images(X: Any) -> OpenedImages:
    """Open many images; a table with a single column, as a ColumnTransformer passes it, is a list of them."""
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    if isinstance(X, np.ndarray) and X.dtype.kind in "OSU":
        if X.ndim > 2 or (X.ndim == 2 and X.shape[1] != 1):
            raise ShapeError(f"The images are a table of shape {X.shape}: pass a list, or a table of one column.")
        X = X.ravel().tolist()
    images, single = open_images(X)
    if single:
        raise UsageError("X is one image, and parts are learned from many: pass a list of images, a folder or a glob.")
    return images
