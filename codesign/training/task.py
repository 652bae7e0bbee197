"""What a network learns: a class of each example, or a number."""

import math

import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

from codesign.data.dataset import Split
from codesign.types import Array


def losses(logits: Array, labels: Array) -> Array:
    """[B] of each example: cross-entropy of classes, squared error of numbers.

    Args:
        logits: [B, num_classes], or [B, 1] of a regression.
        labels: [B] int32 classes, or float32.
    """
    if jnp.issubdtype(labels.dtype, jnp.floating):
        return jnp.square(logits[:, 0] - labels)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def answers(logits: Array, labels: Array) -> Array:
    """[B] float32: the most likely class, or the number."""
    if jnp.issubdtype(labels.dtype, jnp.floating):
        return logits[:, 0]
    return jnp.argmax(logits, -1).astype(jnp.float32)


def score(found: np.ndarray, labels: np.ndarray) -> float:
    """How good answers [N] are: the fraction of right classes, or a correlation.

    The latter is the mean of Pearson's and Spearman's, as GLUE has it of STS-B, and 0 of
    answers that are all the same.
    """
    if labels.dtype == np.int32:
        return float(np.mean(found == labels))
    if np.ptp(found) == 0 or np.ptp(labels) == 0:
        return 0.0
    ranks = (stats.rankdata(found), stats.rankdata(labels))
    both = (np.corrcoef(*pair)[0, 1] for pair in ((found, labels), ranks))
    return float(sum(both)) / 2


def of_guessing(split: Split, num_classes: int) -> tuple[float, float]:
    """Score and loss of one who answers alike whatever the example."""
    if split.labels.dtype == np.int32:
        most = np.bincount(split.labels).max() / len(split)
        return float(most), math.log(num_classes)
    return 0.0, float(np.var(split.labels))
