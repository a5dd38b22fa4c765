"""Keywords of product titles, of other languages, and of the customer's own list."""

import pickle
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from cir_vectorizer.cli import main
from cir_vectorizer.errors import CaptionError
from cir_vectorizer.models import read_record
from cir_vectorizer_trainer.captions.keywords import (
    BuiltinTagger,
    SpacyTagger,
    Tagger,
    all_keyword_spans,
    best_tagger,
    keyword_spans,
    mask_keywords,
    prepare,
)
from cir_vectorizer_trainer.captions.titles import KEYWORD, NEVER
from cir_vectorizer_trainer.captions.wordlist import ListedTagger, read_word_list
from examples.demo.catalog import SEEN, caption, rough_caption

ENGLISH = BuiltinTagger()
TITLES = BuiltinTagger(["Nike Air Max 90 Men's Shoes", "Denim Jacket, Size M"])
GERMAN = ("Rotes Kleid mit langen Ärmeln", "Blaue Hose für Herren", "Jacke aus Wolle und Seide")


def masked(text: str, tagger: Tagger, seed: int = 0) -> str:
    return "$".join(mask_keywords(text, tagger, random.Random(seed)))


def runs(text: str, tagger: Tagger) -> list[str]:
    text = prepare(text)
    return [text[start:end] for start, end in keyword_spans(text, tagger)]


def drawn(count: int = 300) -> list[str]:
    rng = random.Random(0)
    return [caption(rng.choice(SEEN), rng) for _ in range(count)]


# --- titles --------------------------------------------------------------------------------------

MASKED = {
    "3/4-sleeve tee": "$",
    "3/4 sleeve tee": "$",
    "tee with 3/4 sleeves": "$ with $",
    "2-pack socks": "$",
    "socks, pack of 2": "$, $",
    "pack of 3 striped socks": "$",
    "set of three bowls": "$",
    "5-pocket v-neck a-line t-shirt XL": "$",
    "jeans 32/34": "$",
    "boots, EU 42": "$, $",
    "perfume 100 ml": "$",
    "perfume, 75ml": "$, $",
    "bottle, 0,75 l": "$, $",
    "poster 30 x 40 cm": "$",
    "Nike Air Max 90": "$",
    "Jealous 21 Women Jeans": "$",
    "B07XYZ red mug": "$",
    "Titan Men Watch NH1043SL01A": "$",
    "table with 4 chairs": "$ with 4 $",
    "3 striped socks": "3 $",
    "100% cotton shirt": "100% $",
    "mug 19.99 eur": "$ 19.99 eur",
    "mug €19,99": "$ €19,99",
    "mug (AB-1234)": "$ (ab-1234)",
    "red dress, SKU: AB-1234": "$, sku: ab-1234",
    "SKU AB-1234 red dress": "sku ab-1234 $",
    "Flying Machine Men Jeans": "$",
    "Maxima Men White Dial Watch": "$",
    "AND Women Pink Dress": "$",
    "W Women Kurta": "$",
    "U.S. Polo Assn. Men Shirt": "$",
    "s.Oliver Women Top": "$",
    "soft cotton. machine wash": "$. $",
    "Reid & Taylor Men Socks": "$ & $",
    "the table has 4 chairs": "$ has 4 $",
}


@pytest.mark.parametrize(("title", "expected"), MASKED.items())
def test_sizes_names_and_codes_of_titles(title: str, expected: str) -> None:
    assert masked(title, TITLES) == expected


@pytest.mark.parametrize("title", ["19.99", "SKU AB-1234", "AB-1234", "b07xyz", "2024", "EAN: 4006381333931"])
def test_a_lone_price_or_code_is_no_keyword(title: str) -> None:
    assert runs(title, TITLES) == []


def test_captions_are_titles_if_hardly_any_is_a_sentence() -> None:
    rng = random.Random(0)
    assert BuiltinTagger([rough_caption(rng.choice(SEEN), rng) for _ in range(200)]).name == "builtin:titles"
    stock_photos = ["young woman walking in park", "dog running after ball", "children playing football"]
    assert BuiltinTagger(stock_photos).name == "builtin"
    assert BuiltinTagger(drawn()).name == BuiltinTagger().name == BuiltinTagger(["", " $ "]).name == "builtin"


def test_sentences_and_captions_among_sentences_keep_their_tags() -> None:
    sentences = drawn()
    assert list(all_keyword_spans(sentences, BuiltinTagger(sentences))) == list(all_keyword_spans(sentences, ENGLISH))
    mixed = [*sentences, *MASKED]
    assert list(all_keyword_spans(mixed, BuiltinTagger(mixed))) == list(all_keyword_spans(mixed, ENGLISH))
    told = [f"this is {text}" for text in MASKED]
    assert list(all_keyword_spans(told, TITLES)) == list(all_keyword_spans(told, ENGLISH))


_PIECES = [
    "sku",
    ":",
    "ab-1234",
    "b07xyz",
    "90",
    "3/4",
    "19.99",
    "eur",
    "%",
    "pack",
    "of",
    "two",
    "u",
    ".",
    "men",
    "run",
    "ml",
]


@given(st.lists(st.sampled_from(_PIECES)).map(" ".join))
def test_runs_of_titles_are_whole_words_and_hold_a_keyword(title: str) -> None:
    tagged = runs(title, TITLES)
    assert all(run.strip() == run and run in title for run in tagged)
    named = {"pack", "men", "run", "3/4", "ml", "u", "b07xyz", "ab-1234"}
    assert all(named & set(run.split()) for run in tagged)
    assert not {"sku", "eur"} & {word for run in tagged for word in run.split()}


def test_real_titles(shared: Path) -> None:
    titles = (shared / "data" / "products" / "titles.txt").read_text(encoding="utf-8").splitlines()
    tagger = best_tagger(titles)
    if isinstance(tagger, SpacyTagger):
        pytest.skip("spaCy tags English titles here")
    assert tagger.name == "builtin:titles"
    expected = {
        "Jealous 21 Women's Purple Graphic Top": "$",
        "Provogue Men Pack of 3 Striped Socks": "$",
        "Lotus Herbals Moistpetals Orchid Star Lipstick 184": "$",
        "Casio Edifice Men Chronograph Watch EF-540D-1AVDF(ED371)": "$(ed371)",
        "U.S.Polo Assn. Men Orange Striped Polo T-shirt": "$",
        "Gini and Jony Girls Green Shorts": "$ and $",
        "Gini and Jony Boys Yellow 3/4 Length Pants": "$ and $",
        "Lotus Herbals Almond Nourish Body Lotion with SPF 20": "$ with $",
    }
    assert expected.keys() <= set(titles)
    assert {title: masked(title, tagger) for title in expected} == expected
    whole = [sum(masked(title, by) == "$" for title in titles) / len(titles) for by in (ENGLISH, tagger)]
    assert whole[0] < 0.75
    assert whole[1] > 0.85


# --- other languages -----------------------------------------------------------------------------

LANGUAGES = {
    "German": (GERMAN, "rotes kleid mit langen ärmeln", "$ mit $"),
    "French": (
        ("robe rouge avec ceinture", "sac à main en cuir", "veste de ski"),
        "pull en laine avec col",
        "$ en $ avec $",
    ),
    "Spanish": (
        ("vestido rojo con flores", "zapatos de piel para mujer"),
        "falda de lino con cinturón",
        "$ de $ con $",
    ),
    "Italian": (("vestito rosso con fiori", "borsa di pelle da donna"), "gonna di lino con cintura", "$ di $ con $"),
    "Polish": (("czerwona sukienka z paskiem", "buty i torebki dla kobiet"), "sweter z wełny i jedwabiu", "$ z $ i $"),
    "Turkish": (
        ("kadın için kırmızı elbise", "ceket ve pantolon"),
        "erkek için mavi gömlek ve kravat",
        "$ için $ ve $",
    ),
    "German titles": (GERMAN, "Socken 3er-Pack, Gr. 38/40 mit 2 Streifen", "$, $ mit 2 $"),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_linking_words_of_other_languages_stay(language: str) -> None:
    known, text, expected = LANGUAGES[language]
    tagger = BuiltinTagger(known)
    assert tagger.name.startswith("builtin:")
    assert masked(text, tagger) == expected


def in_an_unlisted_language(count: int = 1500) -> list[str]:
    """Captions of made-up words, whose linking words are "dun" and "oke"."""
    rng = random.Random(1)
    things = [a + b for a in ("bala", "mori", "tasu", "keno", "riva", "supo") for b in ("ra", "ti", "mo", "lu", "ne")]
    looks = [a + b for a in ("zi", "pa", "gu", "wo") for b in ("ran", "tek", "mil")]

    def thing() -> str:
        return " ".join([rng.choice(looks)] * (rng.random() < 0.6) + [rng.choice(things)])

    return [" ".join([thing(), *rng.choice([(), ("dun", thing()), ("oke", thing())])]) for _ in range(count)]


def test_linking_words_of_an_unlisted_language_are_told_by_frequency_and_place() -> None:
    captions = in_an_unlisted_language()
    tagger = BuiltinTagger(captions)
    assert tagger.name.startswith(("builtin:dun,oke:", "builtin:oke,dun:"))
    assert masked("zitek balara dun moriti oke tasune", tagger) == "$ dun $ oke $"
    assert BuiltinTagger(captions).name == tagger.name
    assert BuiltinTagger([text.replace("oke", "uke") for text in captions]).name != tagger.name


def test_english_captions_with_foreign_brands_stay_english() -> None:
    captions = [
        "Eau de Toilette for Women",
        "La Martina Shirt",
        "Mango Dress with Belt",
        "Samsung Galaxy S21 Case for Men",
    ]
    assert BuiltinTagger(captions).name == "builtin:titles"


def test_spacy_tags_no_other_language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cir_vectorizer_trainer.captions.keywords.find_spec", lambda name: pytest.fail("asked for spaCy")
    )
    assert best_tagger(GERMAN).name.startswith("builtin:")


# --- the customer's own list ---------------------------------------------------------------------


def listed(folder: Path, text: str, tagger: Tagger = ENGLISH) -> ListedTagger:
    path = folder / "keywords.txt"
    path.write_text(text, encoding="utf-8")
    return ListedTagger(tagger, read_word_list(path))


def test_listed_phrases_are_keywords_and_those_after_a_hyphen_never(tmp_path: Path) -> None:
    tagger = listed(tmp_path, "\ufeffReid & Taylor\r\n\n off \nmade in italy\n-New\n- in italy\nnew balance\n")
    assert masked("Reid & Taylor Men Socks", tagger) == "$"
    assert masked("a new dress off sale", tagger) == "$ new $"
    assert masked("new balance shoes, made in Italy", tagger) == "$, $"
    assert masked("a villa in italy", tagger) == "$ in italy"
    assert masked("newer news", tagger) == "$"


def test_the_longest_phrase_counts_and_phrases_do_not_overlap() -> None:
    phrases = {("with", "it"): KEYWORD, ("with", "it", "and"): NEVER, ("and", "so"): KEYWORD}
    tags = ListedTagger(ENGLISH, phrases).tag([["with", "it", "and", "so"], ["with", "it", "so"], []])
    assert list(tags) == [[NEVER, NEVER, NEVER, "ADV"], [KEYWORD, KEYWORD, "ADV"], []]


def test_a_caption_of_nothing_but_excluded_words_has_no_marker(tmp_path: Path) -> None:
    tagger = listed(tmp_path, "-sku\n-new\n")
    assert {masked("new sku", tagger, seed) for seed in range(20)} == {"new sku"}
    assert {masked("go to sku now", tagger, seed) for seed in range(40)} == {
        "$ to sku now",
        "go $ sku now",
        "go to sku $",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no phrase"),
        (b"\n \n", "holds no phrase"),
        (b"red\nbl\xfcte\n", "line 2: not UTF-8"),
        (b"red\n\n-\n", "line 3: '-' has no word"),
        (b"red\n-blue\n-Red\n", "line 3: 'red' is listed both with and without"),
    ],
)
def test_a_bad_list_is_refused_by_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "keywords.txt"
    path.write_bytes(content)
    with pytest.raises(CaptionError, match=message) as refused:
        read_word_list(path)
    assert str(path) in str(refused.value)


def test_a_list_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.txt", tmp_path):
        with pytest.raises(CaptionError, match="cannot be read") as refused:
            read_word_list(path)
        assert str(path) in str(refused.value)


def test_the_name_tells_lists_apart_but_not_orders_of_their_lines(tmp_path: Path) -> None:
    name = listed(tmp_path, "air max\n-new\n").name
    assert name.startswith("builtin+keywords:")
    assert listed(tmp_path, "-NEW\nair  max\n").name == name
    assert len({name, listed(tmp_path, "air max\nnew\n").name, listed(tmp_path, "air\nmax\n-new\n").name}) == 3


def train(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["train", "--objective", "lincir", "--device", "cpu", *map(str, arguments)])


def test_train_records_the_list_and_resumes_with_no_other(tmp_path: Path) -> None:
    captions, words, out = tmp_path / "captions.txt", tmp_path / "words.txt", tmp_path / "model"
    captions.write_text("\n".join(drawn(60)), encoding="utf-8")
    words.write_text("polka dot\n-photo\n", encoding="utf-8")
    given = ("--captions", captions, "--out", out, "--batch-size", 8, "--keywords", words)
    result = train(*given, "--steps", 2)
    assert result.exit_code == 0, result.output
    name = listed(tmp_path, words.read_text(encoding="utf-8")).name
    assert f"keywords by {name};" in result.output
    assert read_record(out)["composers"]["lincir"]["training"]["tagger"] == name
    assert train(*given, "--steps", 3, "--resume").exit_code == 0
    words.write_text("polka dot\n", encoding="utf-8")
    refused = train(*given, "--steps", 4, "--resume")
    assert refused.exit_code == 1
    assert "give the same --keywords" in refused.output
    words.write_text("", encoding="utf-8")
    assert "holds no phrase" in train(*given, "--steps", 4, "--overwrite").output


# --- taggers travel to other processes -----------------------------------------------------------


@pytest.mark.parametrize("captions", [(), list(MASKED), GERMAN])
def test_taggers_can_be_pickled(captions: Sequence[str]) -> None:
    for tagger in (BuiltinTagger(captions), ListedTagger(BuiltinTagger(captions), {("mit", "seide"): KEYWORD})):
        copy = pickle.loads(pickle.dumps(tagger))
        assert copy.name == tagger.name
        texts = [prepare(text) for text in [*MASKED, *GERMAN]]
        assert list(all_keyword_spans(texts, copy)) == list(all_keyword_spans(texts, tagger))


def test_spacys_tagger_is_loaded_anew_where_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cir_vectorizer_trainer.captions.keywords._load_spacy", _fake_load)
    assert pickle.loads(pickle.dumps(SpacyTagger("en_core_web_sm", lambda: None))).name == "spacy:en_core_web_sm:loaded"


def _fake_load(model: str) -> SpacyTagger:
    """A fake of loading spaCy's model, because spaCy's models are not on the package index."""
    return SpacyTagger(f"{model}:loaded", None)
