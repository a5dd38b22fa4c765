"""The words that name things and their looks are masked; the words between them stay."""

import random
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cir_vectorizer_trainer.captions.keywords import (
    BuiltinTagger,
    SpacyTagger,
    all_keyword_spans,
    best_tagger,
    keyword_spans,
    mask_keywords,
    masked_pieces,
    prepare,
)
from cir_vectorizer_trainer.captions.lexicon import KINDS

TAGGER = BuiltinTagger()


def masked(caption: str, seed: int = 0) -> str:
    return "$".join(mask_keywords(caption, TAGGER, random.Random(seed)))


PUBLISHED = {
    "a red dress with long sleeves": "$ with $",
    "turtle check men navy blue shirt": "$",
    "puma men grey t-shirt": "$",
    "black leather handbag with gold buckle and chain": "$ with $ and $",
}
SHOP = {
    "red, white dress": "$, $",
    "Levi's men's slim jeans, stonewash": "$, $",
    "Women's off the shoulder ruffle midi dress - navy blue (size M)": "$ off $ - $ ($)",
    "off white crew neck sweater with ribbed cuffs": "$ with $",
    "plus size floral print maxi dress": "$",
    "ladies' black high-waisted skinny jeans": "$",
    "white/black running shoes": "$/$",
    "features a relaxed fit, long sleeves and a hidden zip": "features $, $ and $",
    "this jacket features two side pockets": "$ features two $",
    "wooden dining table with 4 chairs": "$ with 4 $",
    "stretch cotton t shirt. made in portugal.": "$. made in $.",
    "is solid black with no sleeves": "is $ with $",
    "is lighter and longer": "is $ and $",
    "has more color and is more revealing": "has $ and is more $",
    "is less fitted": "is less $",
    "it has a button down collar and comes in blue": "it has $ down $ and comes in $",
    "the desired item looks like a tunic": "$ looks like $",
    "is above the knee": "is above $",
}
PICTURES = {
    "a man walks his dog on the beach at sunset": "$ walks his $ on $ at $",
    "young woman in a white dress sitting on a bench": "$ in $ sitting on $",
    "football player celebrates scoring the opening goal": "$ celebrates scoring $",
    "illustration of a cute bear holding a balloon": "$ of $ holding $",
    "the city skyline is reflected in the river": "$ is reflected in $",
    "politician speaks to reporters after a meeting": "$ speaks to $ after $",
    "how to draw a horse": "how to draw $",
    "people waiting to cross the street": "$ waiting to cross $",
    "this is a picture of my living room": "this is $ of my $",
    "the dog jumped over the fence and ran away": "$ jumped over $ and ran away",
    "two zebras are grazing in a field of tall grass": "two $ are grazing in $ of $",
    "a parked car": "$",
    "a car parked near the harbor": "$ parked near $",
    "a can of soda that cannot be opened": "$ of $ that cannot be opened",
    "show the dog and remove the cat": "show $ and remove $",
    "a new look for the show": "$ for $",
    "change to a painting of children painting the wall": "change to $ of $ painting $",
    "<PERSON> arrives at the premiere": "$ arrives at $",
    "very slowly the old dog sat down": "very slowly $ sat down",
}
DRAWN = {
    "a photo of a blue striped dress": "$ of $",
    "dress, red, dotted": "$, $, $",
    "purple skirt , polka dot": "$ , $",
    "this mug is red and has stripes": "$ is $ and has $",
    "a mug that is red and striped": "$ that is $ and $",
    "a checkered hat that is teal": "$ that is $",
    "a product photo of an orange boot with no pattern": "$ of $ with $",
    "a striped red thing that is a dress": "$ that is $",
}
OTHERS = {
    "红色连衣裙": "$",
    "ein grünes kleid": "$",
    "नमस्ते": "$",
    "red dress 😍 blue hat": "$ 😍 $",
    "😍red dress": "😍$",
}


@pytest.mark.parametrize(("caption", "expected"), (PUBLISHED | SHOP | PICTURES | DRAWN | OTHERS).items())
def test_keywords_of_typical_captions_become_one_marker_a_run(caption: str, expected: str) -> None:
    assert masked(caption) == expected


def test_masking_goes_by_word_and_not_by_substring() -> None:
    assert masked("art at the party with art") == "$ at $ with $"
    assert masked("a cat catching it") == "$ catching it"


@pytest.mark.parametrize(
    ("raw", "prepared"),
    [
        ("A  Red\tDRESS\n", "a red dress"),
        ("$ 5 for a $mug$", "5 for a mug"),
        ("<PERSON> and <Person>", "person and person"),
        ("", ""),
        (" $ ", ""),
    ],
)
def test_captions_are_prepared_as_published(raw: str, prepared: str) -> None:
    assert prepare(raw) == prepared


def test_a_caption_without_keywords_loses_one_random_word() -> None:
    plain = "how to go there"
    assert keyword_spans(plain, TAGGER) == []
    draws = [mask_keywords(plain, TAGGER, random.Random(seed)) for seed in range(40)]
    assert {len(pieces) for pieces in draws} == {2}
    assert {"$".join(pieces) for pieces in draws} == {
        "$ to go there",
        "how $ go there",
        "how to $ there",
        "how to go $",
    }
    assert masked(plain, seed=3) == masked(plain, seed=3)


def test_emoji_alone_are_masked_like_any_word() -> None:
    assert keyword_spans("😍 🔥", TAGGER) == []
    assert masked("😍 🔥") in {"$ 🔥", "😍 $"}
    assert masked("👩‍👧") == "$"


def test_an_empty_caption_has_nothing_to_mask() -> None:
    assert mask_keywords(" $ ", TAGGER, random.Random(0)) == [""]


def test_a_caption_of_five_hundred_words_is_masked_to_its_end() -> None:
    pieces = masked_pieces(long := " with ".join(["a red dress"] * 125), keyword_spans(long, TAGGER))
    assert pieces == ["", *[" with "] * 124, ""]
    assert masked("dress " * 500) == "$"


def test_many_captions_are_masked_like_each_alone() -> None:
    captions = list(PUBLISHED | SHOP | PICTURES)
    rng, again = random.Random(5), random.Random(5)
    assert list(all_keyword_spans(captions, TAGGER, rng)) == [keyword_spans(c, TAGGER, again) for c in captions]


def test_every_listed_word_gets_a_tag_in_any_surroundings() -> None:
    words = list(KINDS)
    rng = random.Random(0)
    for _ in range(3):
        rng.shuffle(words)
        (tags,) = TAGGER.tag([words])
        assert len(tags) == len(words)
        assert all(tags)


def is_letter(character: str) -> bool:
    return character != "" and unicodedata.category(character) in {"Ll", "Lo", "Nd"}


@given(
    st.text(max_size=60) | st.lists(st.sampled_from([*KINDS, "dress", "zzz", ",", "😍", "红色", "3/4"])).map(" ".join)
)
def test_spans_are_ordered_whole_words_that_rebuild_the_caption(raw: str) -> None:
    caption = prepare(raw)
    spans = keyword_spans(caption, TAGGER, random.Random(0))
    ends = [0, *(end for _, end in spans)]
    assert all(before <= start < end for before, (start, end) in zip(ends, spans, strict=False))
    for start, end in spans:
        assert not caption[start].isspace()
        assert not caption[end - 1].isspace()
        assert not (is_letter(caption[:start][-1:]) and is_letter(caption[start]))
        assert not (is_letter(caption[end - 1]) and is_letter(caption[end:][:1]))
    pieces = masked_pieces(caption, spans)
    assert len(pieces) == len(spans) + 1
    masked_words = [caption[start:end] for start, end in spans]
    rebuilt = "".join(piece + word for piece, word in zip(pieces, [*masked_words, ""], strict=True))
    assert rebuilt == caption
    assert bool(spans) == bool(caption)


@given(st.lists(st.sampled_from(["a", "red", "mug", "with", "is", "it", ","])))
def test_spans_are_maximal_runs(words: list[str]) -> None:
    caption = " ".join(words)
    keywords = {"a", "red", "mug"}
    runs = sum(word in keywords and (at == 0 or words[at - 1] not in keywords) for at, word in enumerate(words))
    assert len(keyword_spans(caption, TAGGER)) == runs


# --- spaCy ---------------------------------------------------------------------------------------


class FakeDoc(list[SimpleNamespace]):
    """A fake of spacy.tokens.Doc, because spaCy's models are not on the package index."""

    def __init__(self, vocab: object, words: Sequence[str]) -> None:
        super().__init__(SimpleNamespace(pos_="NOUN" if word == "dress" else "ADP") for word in words)


class FakePipeline:
    """A fake of a loaded spaCy model: every "dress" is a noun, every other word a preposition."""

    vocab = None

    def pipe(self, docs: Iterable[FakeDoc], batch_size: int) -> Iterator[FakeDoc]:
        yield from list(docs)


@pytest.fixture
def fake_spacy(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    installed: list[str] = []
    spacy, tokens = ModuleType("spacy"), ModuleType("spacy.tokens")
    spacy.__spec__ = ModuleSpec("spacy", None)
    spacy.util = SimpleNamespace(get_installed_models=lambda: installed)  # type: ignore[attr-defined]
    spacy.load = lambda name, exclude: FakePipeline()  # type: ignore[attr-defined]
    tokens.Doc = FakeDoc  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    monkeypatch.setitem(sys.modules, "spacy.tokens", tokens)
    return installed


def test_the_built_in_tagger_serves_where_spacy_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cir_vectorizer_trainer.captions.keywords.find_spec", lambda name: None)
    assert best_tagger().name == "builtin"


def test_the_built_in_tagger_serves_where_spacy_has_no_english_model(fake_spacy: list[str]) -> None:
    fake_spacy.append("de_core_news_sm")
    assert best_tagger().name == "builtin"


def test_an_installed_english_model_is_used_and_named(fake_spacy: list[str]) -> None:
    fake_spacy.extend(["en_core_web_lg", "en_core_web_sm"])
    tagger = best_tagger()
    assert tagger.name == "spacy:en_core_web_sm"
    captions = ["the long dress, red dress", "nothing", "dress"]
    assert list(all_keyword_spans(captions, tagger)) == [[(9, 14), (20, 25)], [], [(0, 5)]]


def test_real_spacy_tags_our_words() -> None:
    spacy = pytest.importorskip("spacy")
    if "en_core_web_sm" not in spacy.util.get_installed_models():
        pytest.skip("en_core_web_sm is not installed")
    tagger = best_tagger()
    assert isinstance(tagger, SpacyTagger)
    assert "$".join(mask_keywords("a red dress with long sleeves", tagger, random.Random(0))) == "$ with $"
