"""Cloze tests: a word of a sentence is missing, to be found without any label."""

import dataclasses

import numpy as np

from codesign.data import partition
from codesign.data.dataset import Split
from codesign.data.text import SPECIAL
from codesign.data.text_datasets import TextDataset
from codesign.types import is_whole

_MASK = "[MASK]"


def cloze(dataset: TextDataset, *, copies: int = 1, seed: int = 0) -> TextDataset:
    """Replaces one token of each text by `[MASK]`; the label is the token.

        [CLS] a dull film [SEP]  ->  [CLS] a [MASK] film [SEP], label `dull`

    The labels of `dataset` are not read, and each text stays in its split: a network that
    learns this of the training split has seen nothing of validation or test. What was cut
    off is not there. Texts of special tokens alone are left out.

    Args:
        dataset: Texts.
        copies: Examples made of each training text; each draws its token anew.
        seed: Root of the draw.

    Returns:
        As many classes as the vocabulary has pieces, named by them.

    Raises:
        ValueError: If `copies` or `seed` is out of its range, or a split has no word.
    """
    if not is_whole(copies) or copies < 1:
        raise ValueError(f"`copies` (={copies!r}) must be a whole number >= 1.")
    seed = partition.checked({}, seed)
    splits = {
        part: _masked(dataset, part, copies if part == "train" else 1, [seed, number])
        for number, part in enumerate(("train", "validation", "test"))
    }
    return dataclasses.replace(
        dataset,
        **splits,
        name=f"cloze({dataset.name})",
        num_classes=len(dataset.vocabulary),
        class_names=dataset.vocabulary.pieces,
    )


def _masked(dataset: TextDataset, part: str, copies: int, seed: list[int]) -> Split:
    numbers = {piece: n for n, piece in enumerate(dataset.vocabulary.pieces)}
    tokens = np.repeat(getattr(dataset, part).images, copies, axis=0)  # [N, T]
    is_word = ~np.isin(tokens, [numbers[piece] for piece in SPECIAL])
    # Raw bits, as NumPy may change the streams of its generator's methods.
    bits = np.random.PCG64(seed).random_raw(len(tokens))
    num_words = is_word.sum(1)
    has_word = num_words > 0
    if not has_word.any():
        raise ValueError(
            f"`dataset` {dataset.name!r} has no word of its vocabulary in any text of "
            f"`{part}`; take a larger vocabulary, or other texts."
        )
    tokens, is_word = tokens[has_word], is_word[has_word]
    chosen = bits[has_word] % num_words[has_word].astype(np.uint64)
    place = np.argmax(is_word.cumsum(1) > chosen[:, None].astype(np.int64), axis=1)
    rows = np.arange(len(tokens))
    labels = tokens[rows, place]
    tokens[rows, place] = numbers[_MASK]
    return Split(tokens, labels)
