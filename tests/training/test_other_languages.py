"""Captions that are not English: their keywords by frequency, and edits only in the words of a language that was named."""

import random

import pytest
from click.testing import CliRunner, Result

from cir_vectorizer.cli import main
from cir_vectorizer.models import read_record
from cir_vectorizer_trainer.captions.keywords import BuiltinTagger, Tagger, keyword_spans, mask_keywords, prepare

GERMAN = """
Damen Sommerkleid mit Blumenmuster in Rot
Herren Slim-Fit Hemd aus Baumwolle, weiß
Kinder Regenjacke mit Kapuze in Gelb
Schwarze Lederjacke für Herren mit Reißverschluss
Blaue Jeans mit hohem Bund für Damen
Wollmantel in Grau mit Gürtel
Laufschuhe für Herren in Blau und Weiß
Rucksack aus recyceltem Polyester, 20 l
Damen Bluse mit Stehkragen aus Viskose
Gestreiftes T-Shirt für Kinder in Rot und Weiß
Winterstiefel mit Fellfutter in Braun
Strickpullover aus Merinowolle für Herren
Sportleggings mit Taschen in Schwarz
Damen Handtasche aus Leder mit Schulterriemen
Badehose für Herren mit Palmenmuster
Karierter Schal aus Kaschmir in Beige
Kurze Hose aus Leinen in Grün
Pyjama für Damen mit Streifen, 2-teilig
Mütze aus Wolle mit Bommel in Rosa
Sneaker für Damen in Weiß mit goldenen Details
Regenmantel für Damen in Dunkelblau
Fleecejacke für Kinder mit Sternen
Herren Anzughose aus Schurwolle in Anthrazit
Maxikleid mit Punkten in Schwarz
Jeansjacke für Damen in Hellblau
Polohemd für Herren aus Piqué in Grün
Socken im 5er-Pack aus Bio-Baumwolle
Abendkleid aus Satin ohne Ärmel in Lila
Cordhose für Herren in Braun
Daunenweste mit Stehkragen für Damen
Handschuhe aus Leder mit Wollfutter
Sonnenhut aus Stroh mit schwarzem Band
Gummistiefel für Kinder in Grün
Sportschuhe mit Klettverschluss für Kinder
Rollkragenpullover aus Kaschmir in Creme
Bademantel für Herren in Marineblau
Faltenrock mit Karomuster in Rot
Kapuzenpullover mit Logo für Herren, Gr. XL
Ballerinas aus Wildleder in Beige
Strandtasche mit Streifen in Blau und Weiß
Krawatte aus Seide mit Punkten
Bikini mit Blumenmuster in Türkis
Trekkinghose mit Reißverschluss für Damen
Trenchcoat für Damen in Beige mit Gürtel
Unterhemd aus Baumwolle im Doppelpack
Sandalen mit Absatz in Schwarz
Sweatshirt für Kinder mit Dinosaurier
Leinenhemd für Herren ohne Kragen in Weiß
Stirnband aus Fleece in Grau
Latzhose für Kinder aus Jeans
Umstandskleid mit Streifen in Marineblau
Geldbörse aus Leder für Herren in Braun
Spitzen-BH ohne Bügel in Schwarz
Wickelkleid aus Jersey mit Blumen
Chelsea-Boots für Herren aus Wildleder
Steppjacke mit Kapuze für Damen in Oliv
Baseballkappe mit Stickerei in Rot
Strumpfhose für Damen in Schwarz, Gr. 40
Tunika aus Leinen mit Stickerei
Schlafanzug für Kinder mit Bären in Hellblau
""".strip().splitlines()


def masked(text: str, tagger: Tagger) -> str:
    return "$".join(mask_keywords(text, tagger, random.Random(0)))


def train(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["train", "--model", "tiny", "--device", "cpu", *map(str, arguments)])


# --- keywords --------------------------------------------------------------------------------------


def test_keywords_of_sixty_german_titles_are_their_content_words() -> None:
    assert len(GERMAN) == 60
    tagger = BuiltinTagger(GERMAN)
    assert not tagger.english
    assert tagger.name.startswith("builtin:in,mit,für:")
    assert masked(GERMAN[0], tagger) == "$ mit $ in $"
    assert masked("Chelsea-Boots für Herren aus Wildleder", tagger) == "$ für $ aus $"
    assert masked("Socken im 5er-Pack aus Bio-Baumwolle", tagger) == "$ im $ aus $"
    left = {word for title in GERMAN for word in masked(title, tagger).replace("$", " ").split()}
    assert left == {",", "mit", "in", "aus", "für", "und", "im", "ohne"}
    for title in GERMAN:
        text = prepare(title)
        assert all(len(text[start:end]) > 1 for start, end in keyword_spans(text, tagger))


WRITINGS = {
    "Arabic": (["فستان أحمر مع حزام", "حقيبة من الجلد، سوداء"], "حذاء من الجلد، أسود", "$ من $، $"),
    "Hindi": (["महिलाओं के लिए लाल ड्रेस", "चमड़े का बैग और बेल्ट"], "पुरुषों के लिए कमीज और बेल्ट", "$ के लिए $ और $"),
    "Russian": (["красное платье с поясом", "сумка из кожи для женщин"], "куртка из кожи с поясом", "$ из $ с $"),
    "Chinese": (["红色连衣裙，长袖", "女士真皮的手提包与钱包"], "T-shirt 纯棉的与长袖", "$的与$"),
    "Japanese": (["ブルーのワンピース 長袖", "コットンとリネンのシャツ"], "ブルーのコートとベルト", "$の$と$"),
}


@pytest.mark.parametrize("language", WRITINGS)
def test_linking_words_of_other_writings_stay_in_few_captions(language: str) -> None:
    known, text, expected = WRITINGS[language]
    tagger = BuiltinTagger(known)
    assert not tagger.english
    assert masked(text, tagger) == expected


@pytest.mark.parametrize("captions", [["กระเป๋าหนังสีดำ สำหรับผู้หญิง"], ["여성용 빨간 원피스, 가죽"]])
def test_in_other_writings_without_linking_words_all_words_are_keywords(captions: list[str]) -> None:
    tagger = BuiltinTagger(captions)
    assert not tagger.english
    assert masked(captions[0], tagger).replace(",", "").split() == ["$"] * (1 + captions[0].count(","))


def test_a_named_language_is_believed() -> None:
    titles = ["Herrenhemd Blau", "Rock Rot"]
    assert BuiltinTagger(titles).english
    named = BuiltinTagger(titles, english=False)
    assert not named.english
    assert masked("Hemd rot", named) == "$"
    assert BuiltinTagger(GERMAN, english=True).name == "builtin:titles"


# --- training --------------------------------------------------------------------------------------


@pytest.fixture
def captions(tmp_path):
    path = tmp_path / "titel.txt"
    path.write_text("\n".join(GERMAN), encoding="utf-8")
    return path


def test_german_captions_train_without_edits_unless_their_language_is_named(captions, tmp_path) -> None:
    short = ("--captions", captions, "--steps", 2, "--batch-size", 8)
    plain = train(*short, "--out", tmp_path / "plain")
    assert plain.exit_code == 0, plain.output
    assert "the captions are not English, and edits are worded in English by default" in plain.output
    assert "there are phrasings for en, de" in plain.output
    assert "the captions are trained on as LinCIR publishes it" in plain.output
    record = read_record(tmp_path / "plain")["composers"]["lincir"]
    assert "adapter" not in record
    assert record["training"]["tagger"].startswith("builtin:in,mit,für:")
    asked = train(*short, "--objective", "edits", "--out", tmp_path / "asked")
    assert asked.exit_code == 1
    assert "name a language with --language" in asked.output
    named = train(*short, "--language", "de", "--out", tmp_path / "named")
    assert named.exit_code == 0, named.output
    record = read_record(tmp_path / "named")["composers"]["lincir"]
    assert record["training"]["objective"] == "edits"
    assert record["training"]["tagger"].startswith("builtin:in,mit,für:")


def test_a_language_without_phrasings_trains_without_edits(captions, tmp_path) -> None:
    result = train("--captions", captions, "--language", "fr", "--steps", 2, "--batch-size", 8, "--out", tmp_path / "a")
    assert result.exit_code == 0, result.output
    assert "no phrasings for 'fr'; choose one of en, de, or give a file with --phrasings" in result.output
    assert "the captions are trained on as LinCIR publishes it" in result.output
    assert "adapter" not in read_record(tmp_path / "a")["composers"]["lincir"]


def test_make_edits_notes_that_its_words_are_english(captions, tmp_path) -> None:
    arguments = ["make-edits", "--captions", str(captions), "--out", str(tmp_path / "edits.csv")]
    plain = CliRunner().invoke(main, arguments)
    assert "Note: the captions are not English, and edits are worded in English by default" in plain.output
    named = CliRunner().invoke(main, [*arguments, "--language", "de"])
    assert named.exit_code == 0, named.output
    assert "not English" not in named.output
