"""Text as tokens: words and pieces of words, numbered by a vocabulary.

A text is cut at white space; each character of punctuation, and each Chinese one, is a
word of its own. Words are in lower case and without accents, unless a vocabulary keeps
them. A word that is not in the vocabulary is spelled by pieces: from its beginning, each
time the longest piece that fits, where `##` marks a piece that goes on with a word. With
`re`, `##do` and `##doing`, `redoing` becomes `re ##doing`. This is WordPiece, as BERT
(Devlin et al., 2018) has it, and a `vocab.txt` of BERT's can be read.
"""

import collections
import dataclasses
import functools
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from codesign.records import write_atomic
from codesign.types import Array, is_whole

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LONGEST = 100  # characters; a longer word is unknown
_CHINESE = ("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH")


def split_words(text: str, *, lower_case: bool = True) -> list[str]:
    """Cuts a text into words: `"Don't!"` gives `don`, `'`, `t` and `!`.

    Args:
        text: Any text. Control characters are left out.
        lower_case: Whether to bring it into lower case and to strip accents.
    """
    words = []
    for chunk in text.split():
        if lower_case:
            decomposed = unicodedata.normalize("NFD", chunk.lower())
            chunk = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
        is_open = False  # whether the last word goes on
        for character in chunk:
            kind = unicodedata.category(character)
            if kind in ("Cc", "Cf") or character == "\ufffd":
                continue
            if _stands_alone(character, kind):
                words.append(character)
                is_open = False
            elif is_open:
                words[-1] += character
            else:
                words.append(character)
                is_open = True
    return words


def _stands_alone(character: str, kind: str) -> bool:
    if character.isascii():
        return not character.isalnum()
    is_chinese = kind == "Lo" and unicodedata.name(character, "").startswith(_CHINESE)
    return kind.startswith("P") or is_chinese


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Numbers pieces of words; `[PAD]`, which fills a text up, has the number 0."""

    pieces: tuple[str, ...]  # in the order of their numbers; `##` goes on with a word
    lower_case: bool = True  # whether words lose their capitals and accents

    def __post_init__(self):
        """Checks the pieces.

        Raises:
            ValueError: If a piece is empty, has white space or comes twice, if a special
                one is missing, or if `[PAD]` is not the first.
        """
        for number, piece in enumerate(self.pieces):
            if not isinstance(piece, str) or not piece or piece.split() != [piece]:
                raise ValueError(
                    f"`pieces` must be words without white space, but number {number}, "
                    f"line {number + 1} of a file, is {piece!r}; remove it."
                )
            if self._numbers[piece] != number:
                raise ValueError(
                    f"`pieces` holds {piece!r} twice, as number {number}, line "
                    f"{number + 1} of a file, and as number {self._numbers[piece]}; "
                    "remove one."
                )
        if missing := [piece for piece in SPECIAL if piece not in self._numbers]:
            raise ValueError(
                f"`pieces` lacks {', '.join(missing)}; add them, one a line of a file."
            )
        if self.pieces[0] != SPECIAL[0]:
            raise ValueError(
                f"`pieces` must begin with [PAD], whose number is 0, got "
                f"{self.pieces[0]!r}; reorder them."
            )

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        """The number of each piece."""
        return {piece: number for number, piece in enumerate(self.pieces)}

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def separator(self) -> int:
        """The number of `[SEP]`, which ends a sentence."""
        return self._numbers["[SEP]"]

    @classmethod
    def from_texts(
        cls, texts: Iterable[str], size: int, *, lower_case: bool = True
    ) -> "Vocabulary":
        """Takes the most frequent words, and the characters that spell all others.

        The special pieces come first, then the most frequent characters, as beginnings
        and as continuations of words, in up to half of the room, then the most frequent
        words. So a word that is not taken is spelled, and only a word with a rare
        character becomes `[UNK]`. Equally frequent ones are taken in alphabetic order.

        Args:
            texts: Of the training split alone, or the test is no test.
            size: Most pieces; fewer if the texts have fewer.
            lower_case: Whether words lose their capitals and accents.

        Raises:
            ValueError: If `size` has no room beside the special pieces.
        """
        if not is_whole(size) or size <= len(SPECIAL):
            raise ValueError(
                f"`size` (={size!r}) must be a whole number > {len(SPECIAL)}: the "
                f"special pieces {' '.join(SPECIAL)} take as many; 8192 suits English."
            )
        chunks = collections.Counter(chunk for text in texts for chunk in text.split())
        words, characters = collections.Counter(), collections.Counter()
        for chunk, count in chunks.items():
            for word in split_words(chunk, lower_case=lower_case):
                if len(word) <= _LONGEST:
                    words[word] += count
        for word, count in words.items():
            characters[word[0]] += count
            for character in word[1:]:
                characters[f"##{character}"] += count
        taken = _most_frequent(characters, (size - len(SPECIAL)) // 2)
        for piece in taken:
            words.pop(piece, None)
        taken += _most_frequent(words, size - len(SPECIAL) - len(taken))
        return cls((*SPECIAL, *taken), lower_case)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, lower_case: bool = True
    ) -> "Vocabulary":
        """Reads a vocabulary file, one piece a line, as BERT's `vocab.txt`.

        Args:
            path: The file, in UTF-8.
            lower_case: False for a file that tells capitals apart, of a `cased` model.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a line is not UTF-8, or the pieces are no vocabulary.
        """
        lines = Path(path).read_bytes().removesuffix(b"\n").split(b"\n")
        pieces = []
        for number, line in enumerate(lines, 1):
            try:
                pieces.append(line.removesuffix(b"\r").decode())
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: not UTF-8 ({error}); convert the file."
                ) from error
        try:
            return cls(tuple(pieces), lower_case)
        except ValueError as error:
            raise ValueError(f"{path} is no vocabulary file: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file for `load`, which replaces an old one only when complete."""
        write_atomic(path, "".join(f"{piece}\n" for piece in self.pieces))

    def spell(self, word: str) -> tuple[str, ...]:
        """The pieces of one word, each the longest that fits; `[UNK]` if none does."""
        if len(word) > _LONGEST:
            return ("[UNK]",)
        found, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                piece = prefix + word[start:end]
                if piece in self._numbers:
                    break
            else:
                return ("[UNK]",)
            found.append(piece)
            start = end
        return tuple(found)

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        length: int,
    ) -> np.ndarray:
        """Turns texts into rows of tokens: `[CLS]`, the text, `[SEP]`, and `[PAD]`.

        Of a pair the second text and another `[SEP]` follow. What does not fit is cut
        from the end; of a pair one token after the other, from whichever text is longer
        then, and from the second if both are of one length.

        Args:
            texts: N of them.
            pairs: As many, each the second of its pair; None if there are no pairs.
            length: T, tokens in a row.

        Returns:
            `[N, T]` int32.

        Raises:
            ValueError: If `length` leaves no room, or `pairs` are not as many.
        """
        num_special = 2 if pairs is None else 3  # [CLS] and one [SEP] for each text
        least = num_special + (1 if pairs is None else 2)
        if not is_whole(length) or length < least:
            raise ValueError(
                f"`length` (={length!r}) must be a whole number >= {least}: special "
                "tokens, and one for each text; 64 suits sentences, 128 pairs."
            )
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(
                f"`pairs` are {len(pairs)}, but `texts` are {len(texts)}; give one "
                "second text for each first."
            )
        number = self._numbers.__getitem__

        @functools.cache  # a corpus repeats its words
        def encode_chunk(chunk: str) -> tuple[int, ...]:
            words = split_words(chunk, lower_case=self.lower_case)
            return tuple(number(p) for word in words for p in self.spell(word))

        start, end = number("[CLS]"), self.separator
        rows = np.zeros((len(texts), length), np.int32)
        for i, text in enumerate(texts):
            first = _encode_text(text, encode_chunk)
            second = [] if pairs is None else _encode_text(pairs[i], encode_chunk)
            first, second = _cut(first, second, length - num_special)
            row = [start, *first, end]
            if pairs is not None:
                row += [*second, end]
            rows[i, : len(row)] = row
        return rows

    def segments(self, tokens: Array | np.ndarray) -> Array | np.ndarray:
        """Which text of a pair each token belongs to: 0 to the first, 1 to the second.

        Args:
            tokens: `[..., T]` of `encode`, NumPy's or JAX's; `[PAD]` counts as 0.

        Returns:
            `[..., T]` int32; 0 throughout where there are no pairs.
        """
        is_end = tokens == self.separator
        is_second = is_end.cumsum(-1) - is_end > 0  # an end belongs to what it ends
        return (is_second & (tokens != 0)).astype(np.int32)


def _most_frequent(counts: collections.Counter[str], most: int) -> list[str]:
    return sorted(counts, key=lambda piece: (-counts[piece], piece))[:most]


def _encode_text(text: str, encode_chunk: Callable[[str], Iterable[int]]) -> list[int]:
    return [token for chunk in text.split() for token in encode_chunk(chunk)]


def _cut(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """Drops tokens from the end of the longer list until both fit in `room`."""
    num_first, num_second = len(first), len(second)
    while num_first + num_second > room:
        if num_first > num_second:
            num_first -= 1
        else:
            num_second -= 1
    return first[:num_first], second[:num_second]
