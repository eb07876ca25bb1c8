"""Label words: a byte-level and a WordPiece vocabulary, both built here."""

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bbtune.task.verbalizer import label_token_ids

BYTE_LEVEL = [
    "<unk>",
    *"Ġbadgretok",
    "re",
    "ea",
    "Ġg",
    "Ġgrea",
    "Ġgreat",
    "great",
    "grea",
    "gr",
    "Ġb",
    "Ġba",
    "Ġbad",
    "ok",
]
MERGES = [
    *[("Ġ", "g"), ("r", "e"), ("e", "a"), ("g", "re"), ("Ġg", "re"), ("gre", "a"), ("Ġgre", "a"), ("grea", "t")],
    *[("Ġgrea", "t"), ("Ġ", "b"), ("Ġb", "a"), ("Ġba", "d"), ("o", "k")],
]


@pytest.fixture(scope="module")
def byte_level() -> PreTrainedTokenizerFast:
    pieces = dict.fromkeys([*BYTE_LEVEL, "gre", "Ġgre", "Ġ"])
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, MERGES, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.fixture(scope="module")
def word_piece() -> PreTrainedTokenizerFast:
    pieces = ["[UNK]", "good", "bad", "un", "##known", "great"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def pieces(ids: list[list[int]], tokenizer: PreTrainedTokenizerFast) -> list[list[str]]:
    return [tokenizer.convert_ids_to_tokens(of_label) for of_label in ids]


@pytest.mark.parametrize(("after_space", "expected"), [(True, "Ġgreat"), (False, "great")])
def test_byte_level_words_take_the_token_that_belongs_where_the_mask_stands(
    byte_level: PreTrainedTokenizerFast, after_space: bool, expected: str
) -> None:
    ids, faults = label_token_ids([["great"]], byte_level, after_space)
    assert (pieces(ids, byte_level), faults) == ([[expected]], [])


@pytest.mark.parametrize(("word", "after_space", "only"), [("ok", True, "ok"), ("bad", False, "Ġbad")])
def test_the_other_form_is_taken_where_only_that_is_one_token(
    byte_level: PreTrainedTokenizerFast, word: str, after_space: bool, only: str
) -> None:
    ids, faults = label_token_ids([[word]], byte_level, after_space)
    assert (pieces(ids, byte_level), faults) == ([[only]], [])


@pytest.mark.parametrize("after_space", [True, False])
def test_word_piece_words_are_the_same_token_with_and_without_a_space(
    word_piece: PreTrainedTokenizerFast, after_space: bool
) -> None:
    ids, faults = label_token_ids([["bad"], ["Great", "good"]], word_piece, after_space)
    assert (pieces(ids, word_piece), faults) == ([["bad"], ["great", "good"]], [])


def test_a_word_of_several_tokens_is_refused_with_its_pieces(word_piece: PreTrainedTokenizerFast) -> None:
    _, faults = label_token_ids([["unknown"], ["good"]], word_piece, True)
    assert faults == [
        "expected a word that is one token of the model's vocabulary, got 'unknown' = ['un', '##known']",
    ]


def test_a_byte_level_word_of_several_tokens_is_refused_with_the_pieces_it_would_have_there(
    byte_level: PreTrainedTokenizerFast,
) -> None:
    _, faults = label_token_ids([["greatbad"]], byte_level, True)
    assert faults == [
        "expected a word that is one token of the model's vocabulary, got 'greatbad' = ['Ġgreat', 'b', 'a', 'd']",
    ]


def test_the_unknown_token_is_no_label_word(word_piece: PreTrainedTokenizerFast) -> None:
    ids, faults = label_token_ids([["zebra"], ["good"]], word_piece, True)
    assert ids[0] == []
    assert len(faults) == 1
    assert "got 'zebra' = ['[UNK]']" in faults[0]


@pytest.mark.parametrize("words", [[["great"], ["Great"]], [["great", "Great"], ["bad"]]])
def test_two_words_cannot_share_a_token_within_or_across_labels(
    word_piece: PreTrainedTokenizerFast, words: list[list[str]]
) -> None:
    _, faults = label_token_ids(words, word_piece, True)
    assert faults == ["expected a token of its own for each word, got the same for 'great' and 'Great'"]


def test_all_words_at_fault_are_named(word_piece: PreTrainedTokenizerFast) -> None:
    ids, faults = label_token_ids([["zebra", "good"], ["unknown"], ["good"], ["bad"]], word_piece, True)
    assert [len(of_label) for of_label in ids] == [1, 0, 0, 1]
    assert [word in fault for word, fault in zip(["zebra", "unknown", "good"], faults, strict=True)] == [True] * 3
