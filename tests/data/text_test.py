import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.data.text import SPECIAL, Vocabulary, split_words
from tests import fuzzing


def _vocabulary(*pieces, **settings):
    return Vocabulary((*SPECIAL, *pieces), **settings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't!", ["don", "'", "t", "!"]),
        ("  two\twords\n", ["two", "words"]),
        ("a_b $5.50", ["a", "_", "b", "$", "5", ".", "50"]),
        ("Crème BRÛLÉE", ["creme", "brulee"]),
        ("soft\u00adhyphen \u200b", ["softhyphen"]),  # neither can be seen
        ("“quoted”—dash", ["“", "quoted", "”", "—", "dash"]),
        ("5€", ["5€"]),  # beyond ASCII, symbols are no punctuation
        ("日本go", ["日", "本", "go"]),
        ("[SEP]", ["[", "sep", "]"]),  # no text can write a special token
        ("", []),
    ],
)
def test_words_by_hand(text, words):
    assert split_words(text) == words


def test_cased_words_keep_capitals_and_accents():
    assert split_words("Crème BRÛLÉE!", lower_case=False) == ["Crème", "BRÛLÉE", "!"]


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_words_have_no_space_and_stay_as_they_are(text):
    words = split_words(text)
    assert all(word and word.split() == [word] for word in words)
    joined = " ".join(words)
    assert "".join(split_words(joined)) == "".join(words)


def test_the_longest_piece_goes_first():
    # The example of the module: `re ##doing` rather than `re ##do ##ing`.
    vocabulary = _vocabulary("re", "##do", "##doing", "##ing", "r", "##e")
    assert vocabulary.spell("redoing") == ("re", "##doing")
    assert vocabulary.spell("redo") == ("re", "##do")
    assert vocabulary.spell("ree") == ("re", "##e")
    assert vocabulary.spell("do") == ("[UNK]",)  # a continuation begins no word
    # Greedy: `reing` is spelled, `redoi` is not, for nothing goes on after `##do`.
    assert vocabulary.spell("reing") == ("re", "##ing")
    assert vocabulary.spell("redoi") == ("[UNK]",)
    assert vocabulary.spell("r" + "e" * 99)[-1] == "##e"
    assert vocabulary.spell("r" + "e" * 100) == ("[UNK]",)  # more than 100 characters


@settings(max_examples=100, deadline=None)
@given(
    word=st.text("abc", min_size=1, max_size=12),
    pieces=st.sets(st.from_regex(r"\A(##)?[abc]{1,3}\Z"), max_size=12),
)
def test_spelling_against_a_search_for_prefixes(word, pieces):
    found = _vocabulary(*sorted(pieces)).spell(word)
    rest, expected = word, []
    while rest:
        starts = [p for p in pieces if p.startswith("##") == bool(expected)]
        fitting = [p for p in starts if rest.startswith(p.removeprefix("##"))]
        if not fitting:
            expected = ["[UNK]"]
            break
        expected.append(max(fitting, key=len))
        rest = rest[len(expected[-1].removeprefix("##")) :]
    assert list(found) == expected


def test_vocabulary_of_texts_by_hand():
    # Words: the 3, cat 2, sat 1. Characters at the beginning: t 3, c 2, s 1; after it:
    # ##t 3, ##h 3, ##e 3, ##a 3. Room for 10: 5 characters, then 5 words of the 3.
    texts = ["The cat", "the  cat", "THE sat"]
    vocabulary = Vocabulary.from_texts(texts, 15)
    characters = ("##a", "##e", "##h", "##t", "t")
    assert vocabulary.pieces == (*SPECIAL, *characters, "the", "cat", "sat")
    assert vocabulary.spell("that") == ("t", "##h", "##a", "##t")
    assert vocabulary.spell("cats") == ("[UNK]",)  # no room was left for `##s`
    assert len(Vocabulary.from_texts(texts, 1000)) == 5 + 7 + 3
    smaller = Vocabulary.from_texts(texts, 14)
    assert smaller.pieces == (*SPECIAL, *characters[:4], "the", "cat", "sat")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("abcde ", max_size=12), max_size=8), st.integers(30, 60))
def test_nothing_is_lost_of_the_texts_themselves(texts, size):
    # Five letters as beginnings and continuations: 10 of at least 12 places.
    vocabulary = Vocabulary.from_texts(texts, size)
    assert len(vocabulary) <= size
    for word in {word for text in texts for word in split_words(text)}:
        spelled = "".join(p.removeprefix("##") for p in vocabulary.spell(word))
        assert spelled == word


def test_rows_by_hand():
    vocabulary = _vocabulary("good", "film", "bad", "##ly")  # 5, 6, 7, 8
    rows = vocabulary.encode(["Good film", "badly", "a film", ""], length=5)
    expected = [
        [2, 5, 6, 3, 0],
        [2, 7, 8, 3, 0],
        [2, 1, 6, 3, 0],  # a is unknown
        [2, 3, 0, 0, 0],
    ]
    np.testing.assert_array_equal(rows, expected)
    assert rows.dtype == np.int32
    cut = vocabulary.encode(["good film bad"], length=4)
    np.testing.assert_array_equal(cut, [[2, 5, 6, 3]])


def test_pairs_by_hand():
    vocabulary = _vocabulary(*"abcdefgh")  # 5 to 12
    rows = vocabulary.encode(["a b", "a b c d"], ["c", "e f g"], length=8)
    # The second pair has 7 tokens of its own and room for 5: d goes, as the first text
    # is longer, then g, as both have three.
    expected = [[2, 5, 6, 3, 7, 3, 0, 0], [2, 5, 6, 7, 3, 9, 10, 3]]
    np.testing.assert_array_equal(rows, expected)
    segments = [[0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1]]
    for tokens in (rows, jnp.asarray(rows)):
        found = vocabulary.segments(tokens)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, segments)


@settings(max_examples=50, deadline=None)
@given(
    first=st.text("abc", max_size=20),
    second=st.text("abc", max_size=20),
    length=st.integers(5, 30),
)
def test_pairs_keep_both_beginnings(first, second, length):
    vocabulary = _vocabulary(*"abc")
    (row,) = vocabulary.encode([" ".join(first)], [" ".join(second)], length=length)
    parts = vocabulary.segments(row)
    ends = np.flatnonzero(row == vocabulary.separator)
    assert len(ends) == 2
    kept = [
        "".join(vocabulary.pieces[n] for n in row[1 : ends[0]]),
        "".join(vocabulary.pieces[n] for n in row[ends[0] + 1 : ends[1]]),
    ]
    assert first.startswith(kept[0])
    assert second.startswith(kept[1])
    room = length - 3
    assert sum(map(len, kept)) == min(room, len(first) + len(second))
    if len(first) + len(second) > room:  # the shorter is cut to one half at most
        assert len(kept[0]) >= min(len(first), room // 2)
        assert len(kept[1]) >= min(len(second), room // 2)
    np.testing.assert_array_equal(parts[: ends[0] + 1], 0)
    np.testing.assert_array_equal(parts[ends[0] + 1 : ends[1] + 1], 1)
    np.testing.assert_array_equal(parts[ends[1] + 1 :], 0)


def test_single_texts_are_of_one_segment():
    vocabulary = _vocabulary("a")
    tokens = vocabulary.encode(["a a", "a"], length=6)
    np.testing.assert_array_equal(vocabulary.segments(tokens), 0)


def test_a_saved_vocabulary_is_the_same(tmp_path):
    vocabulary = Vocabulary.from_texts(["Der Köter bellt — 日本"], 50, lower_case=False)
    path = tmp_path / "vocab.txt"
    path.write_text("old")
    vocabulary.save(path)
    assert Vocabulary.load(path, lower_case=False) == vocabulary
    assert [entry.name for entry in tmp_path.iterdir()] == ["vocab.txt"]
    assert Vocabulary.load(path) != vocabulary


def test_a_file_like_berts_is_read(tmp_path):
    # Special pieces at 0 and from 3, after unused ones; lines that end as on Windows.
    lines = ["[PAD]", "[unused0]", "[unused1]", *SPECIAL[1:], "play", "##ing"]
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join([*lines, ""]).encode())
    vocabulary = Vocabulary.load(path)
    row = [4, 7, 8, 5, 0]
    np.testing.assert_array_equal(vocabulary.encode(["Playing"], length=5), [row])
    np.testing.assert_array_equal(vocabulary.segments(np.array(row)), 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[PAD]\n\n[UNK]\n", r"is no vocabulary file: .*line 2 of a file, is ''"),
        ("[PAD]\na b\n", r"line 2 of a file, is 'a b'"),
        ("\n".join([*SPECIAL, "a", "a"]), r"'a' twice, as number 5, line 6.* number 6"),
        ("[PAD]\n[UNK]\n[SEP]\n", r"lacks \[CLS\], \[MASK\]"),
        ("\n".join(["a", *SPECIAL]), r"must begin with \[PAD\].*got 'a'"),
        ("", r"line 1 of a file, is ''"),
        (b"[PAD]\n\xff\n", r"vocab\.txt, line 2: not UTF-8"),
    ],
)
def test_files_that_are_no_vocabulary_are_refused(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        Vocabulary.load(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vocab\.txt"):
        Vocabulary.load(tmp_path / "vocab.txt")


@pytest.mark.parametrize("size", [5, 0, 10.0, None])
def test_sizes_without_room_are_refused(size):
    with pytest.raises(ValueError, match=r"`size` \(=.*must be a whole number > 5"):
        Vocabulary.from_texts(["a"], size)


def test_lengths_and_pairs_that_do_not_fit_are_refused():
    vocabulary = _vocabulary("a")
    with pytest.raises(ValueError, match=r"`length` \(=2\).*>= 3"):
        vocabulary.encode(["a"], length=2)
    with pytest.raises(ValueError, match=r"`length` \(=4\).*>= 5"):
        vocabulary.encode(["a"], ["a"], length=4)
    with pytest.raises(ValueError, match=r"`length` \(=8.0\)"):
        vocabulary.encode(["a"], length=8.0)
    with pytest.raises(ValueError, match="`pairs` are 1, but `texts` are 2"):
        vocabulary.encode(["a", "a"], ["a"], length=8)


@pytest.mark.slow
def test_mutated_vocabularies_are_refused_or_read(tmp_path):
    path = tmp_path / "vocab.txt"
    Vocabulary.from_texts(["a few words of a text 12 345"], 60).save(path)
    fuzzing.check(Vocabulary.load, path, accepts=lambda found: found.separator > 0)
