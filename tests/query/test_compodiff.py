"""CompoDiff: the original's numbers, and what a query becomes."""

import copy
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageDraw, ImageOps
from safetensors.torch import save_file

import cir_vectorizer
from cir_vectorizer.backbones import BackboneSpec
from cir_vectorizer.cli import main
from cir_vectorizer.cli.serve import _load
from cir_vectorizer.composers.compodiff import schedule
from cir_vectorizer.composers.compodiff.checkpoint import PREFIX, load_network, published_name, save_network
from cir_vectorizer.composers.compodiff.composer import CompoDiff
from cir_vectorizer.composers.compodiff.knobs import Knobs
from cir_vectorizer.composers.compodiff.network import Gain, Network, NetworkConfig
from cir_vectorizer.composers.compodiff.sampler import SIZES, Draw, sample
from cir_vectorizer.composers.lincir import Phi
from cir_vectorizer.errors import BackboneMismatch, CheckpointError, ImageError, ModelError, QueryError
from cir_vectorizer.models import Vectorizer, import_checkpoint
from cir_vectorizer.query import Options
from cir_vectorizer.service.settings import Settings
from tests import parity
from tests.support.serving import encoded, serving

PARITY = Path(__file__).parents[1] / "data" / "parity" / "compodiff.safetensors"


@pytest.fixture(scope="module")
def model():
    """`tiny` with a CompoDiff of random weights."""
    tiny = cir_vectorizer.load("tiny", "cpu")
    torch.manual_seed(0)
    network = Network(NetworkConfig(dim=128, depth=2, heads=2, head_dim=16, text_width=128))
    composers = {**tiny.composers, "compodiff": CompoDiff(tiny.backbone, network)}
    return Vectorizer("tiny", tiny.backbone, composers, "compodiff")


@pytest.fixture
def picture():
    image = Image.new("RGB", (200, 120), "white")
    ImageDraw.Draw(image).ellipse((10, 10, 70, 110), fill="red")
    return image


def reference(image):
    from io import BytesIO

    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def compose(model, **query):
    return model.compose([query]).vectors[0]


def test_parity_with_the_original_implementation():
    found = parity.check(PARITY)
    assert len(found) >= 10
    assert [row for row in found if not row[1] <= row[2]] == []


def test_a_seed_gives_the_same_vector_whatever_else_is_in_the_batch(model, picture):
    query = {"image": reference(picture), "text": "is blue", "options": {"seed": 7, "steps": 4}}
    strangers = [
        {"text": "a dress", "composer": "compodiff", "options": {"steps": 9}},
        {"image": reference(picture), "negative_text": "red", "options": {"steps": 1, "guidance": [0.5, 3]}},
        {"image": reference(picture), "text": "is blue", "mask": [0, 0, 0.5, 1]},
    ]
    alone = model.compose([query]).vectors[0]
    among = model.compose([strangers[0], query, *strangers[1:] * 9]).vectors[1]
    assert np.abs(alone - among).max() < 1e-5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_served_with_smaller_weights_vectors_are_near_those_of_float32(picture, dtype):
    queries = [
        {"image": reference(picture), "text": text, "composer": composer}
        for composer in ("compodiff", "lincir")
        for text in ("is blue", "a green hat with stripes", "is very dark")
    ]
    full, small = (_load(Settings(model=("tiny",), device="cpu", dtype=each))["tiny"] for each in ("float32", dtype))
    assert small.backbone.dtype == getattr(torch, dtype)
    assert small.composers["compodiff"].network.dtype == torch.float32  # as published: only CLIP is rounded
    assert small.fingerprint == full.fingerprint
    cosines = (full.compose(queries).vectors * small.compose(queries).vectors).sum(axis=1)
    assert cosines.min() > 0.95


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs g++")
def test_compiled_it_gives_the_same_vectors(model, picture):
    queries = [
        {"image": reference(picture), "text": word, "options": {"steps": 3}} for word in ("red", "blue", "green")
    ]
    plain = model.compose(queries).vectors
    composer = CompoDiff(model.backbone, copy.deepcopy(model.composers["compodiff"].network))
    composer.compile()
    compiled = Vectorizer("tiny", model.backbone, {"compodiff": composer}, "compodiff")
    assert np.abs(compiled.compose(queries).vectors - plain).max() < 1e-4


def test_compiled_it_meets_few_shapes(model):
    """torch.compile builds a program for each shape, while queries wait."""
    network = model.composers["compodiff"].network
    shapes = set()

    def counted(x, times, memories):
        shapes.add((x.shape, times.shape, tuple((memory.shape, memory.stride()) for memory in memories)))
        return network(x, times, memories)

    rng = random.Random(0)
    states, masks = torch.randn(3, 77, 128), torch.zeros(1, 64, 64)
    for _ in range(60):
        draws = []
        for _ in range(rng.randint(1, 16)):
            image = torch.randn(128) if rng.random() < 0.7 else None
            noise = torch.randn(rng.randint(1, 9), 2, 128)
            draws.append(Draw(rng.randrange(3), rng.randrange(3), 0, image, 1.5, 7.5, noise))
        filled = sample(network, schedule.cosine_schedule(), states, masks, draws, counted, SIZES)
        plain = sample(network, schedule.cosine_schedule(), states, masks, draws)
        assert (filled - plain).abs().max() < 1e-4 * max(1.0, plain.abs().max().item())
    assert len(shapes) <= 8


def test_the_empty_text_is_encoded_once(model, picture, monkeypatch):
    composer = CompoDiff(model.backbone, model.composers["compodiff"].network)
    fresh = Vectorizer("tiny", model.backbone, {"compodiff": composer}, "compodiff")
    encoded = []
    encode = model.backbone.text.encode_states
    monkeypatch.setattr(model.backbone.text, "encode_states", lambda rows: encoded.extend(rows) or encode(rows))
    queries = [{"image": reference(picture), "text": text, "negative_text": "dots"} for text in ("red", "blue")]
    queries += [{"image": reference(picture), "text": text} for text in ("red", "green", "blue")]
    one_by_one = [fresh.compose([query]).vectors[0] for query in queries]
    lengths = [len(row.ids) for row in encoded]
    assert lengths.count(2) == 1
    together = fresh.compose(queries).vectors
    assert [len(row.ids) for row in encoded].count(2) == 1
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)
    np.testing.assert_allclose(together, model.compose(queries).vectors, atol=1e-5)


def test_the_norms_epsilon_follows_the_weights_and_not_what_autocast_makes_of_the_input():
    x = (1e-2 * torch.randn(4, 64, generator=torch.Generator().manual_seed(0))).bfloat16()
    found = Gain(64)(x).float()
    fine, coarse = (torch.nn.functional.layer_norm(x.float(), (64,), eps=eps) for eps in (1e-5, 1e-3))
    assert (found - fine).abs().max() < 0.05 < (found - coarse).abs().max()


class TestSquash:
    """The published code squashes a picture without a mask to a square too; here `options.squash` does."""

    wide = ImageOps.expand(Image.new("RGB", (100, 100), "red"), (150, 0, 150, 0), "navy")

    def test_it_is_an_option_and_a_models_default(self, model):
        query = {"image": reference(self.wide), "text": "red", "composer": "compodiff"}
        plain = compose(model, **query)
        asked = compose(model, **query, options={"squash": True})
        assert np.abs(plain - asked).max() > 1e-3
        squashed = self.wide.resize((512, 512), Image.Resampling.BICUBIC)
        assert np.abs(asked - compose(model, **{**query, "image": reference(squashed)})).max() < 1e-5
        composer = CompoDiff(model.backbone, model.composers["compodiff"].network, knobs=Knobs(squash=True))
        by_default = Vectorizer("tiny", model.backbone, {"compodiff": composer}, "compodiff")
        assert np.abs(compose(by_default, **query) - asked).max() < 1e-5
        assert np.abs(compose(by_default, **query, options={"squash": False}) - plain).max() < 1e-5
        assert compose(by_default, image=[1.0] * 128, text="red").shape == (128,)

    def test_the_service_keeps_both_embeddings_apart(self):
        with serving() as running:
            query = {"image": encoded(self.wide), "text": "red", "composer": "compodiff"}
            asked = [query, {**query, "options": {"squash": True}}, query]
            found = [running.post("/v1/compose", {"queries": [each]}).json()["vectors"][0] for each in asked]
        np.testing.assert_allclose(found[0], found[2], atol=1e-6)
        assert np.abs(np.subtract(found[0], found[1])).max() > 1e-3

    def test_a_vector_has_no_pixels_to_squash(self, model):
        with pytest.raises(QueryError, match=r"options\.squash: needs the picture itself"):
            compose(model, image=[1.0] * 128, text="red", options={"squash": True})


def test_without_a_seed_the_same_words_draw_the_same_noise(model, picture, tmp_path):
    path = tmp_path / "p.png"
    picture.save(path)
    by_path = compose(model, image=path, text="is blue")
    assert np.abs(by_path - compose(model, image=reference(picture), text=" is blue ")).max() < 1e-6
    seeded = compose(model, image=path, text="is blue", options={"seed": 3})
    assert np.abs(by_path - seeded).max() > 1e-3


@pytest.mark.parametrize(
    "query",
    [
        {"text": "a red dress", "composer": "compodiff"},
        {"image": "P", "composer": "compodiff"},
        {"image": "P", "negative_text": "red"},
        {"image": ["P", "P"], "text": "both"},
        {"image": "P", "text": "blue", "mask": {"box": [0, 0, 0.5, 0.5]}},
        {"image": "P", "text": "blue", "options": {"steps": 1}},
        {"image": "P", "text": "blue", "options": {"source_weight": 0, "guidance": [1, 1], "keep": 0.2}},
    ],
    ids=lambda query: "+".join(query),
)
def test_every_sensible_set_of_conditions_gives_a_unit_vector(model, picture, query):
    if "image" in query:
        data = reference(picture)
        query = {**query, "image": [data, data] if isinstance(query["image"], list) else data}
    vector = compose(model, **query)
    assert np.isfinite(vector).all()
    assert abs(np.linalg.norm(vector) - 1) < 1e-5


def test_keep_1_is_the_picture_itself(model, picture):
    data = reference(picture)
    kept = compose(model, image=data, text="is blue", options={"keep": 1})
    plain = compose(model, image=data)
    assert float(kept @ plain) > 0.9999
    usual = compose(model, image=data, text="is blue")
    assert np.array_equal(usual, compose(model, image=data, text="is blue", options={"keep": 0.5}))


@pytest.mark.parametrize("composer", ["lincir", "sum"])
def test_keep_goes_from_the_words_to_the_picture_for_every_composer(model, picture, composer):
    data = reference(picture)
    image, text = compose(model, image=data), compose(model, text="is blue")
    vectors = [
        compose(model, image=data, text="is blue", composer=composer, options={"keep": k})
        for k in (0, 0.3, 0.5, 0.8, 1)
    ]
    towards_picture = [float(vector @ image) for vector in vectors]
    assert towards_picture == sorted(towards_picture)
    assert float(vectors[0] @ text) > 0.9999
    assert float(vectors[-1] @ image) > 0.9999


def test_named_options_stand_above_keep():
    knobs = Knobs().asked(Options(keep=0.0, source_weight=0.3, steps=4))
    assert (knobs.steps, knobs.image_scale, knobs.text_scale, knobs.source_weight) == (4, 0.0, 7.5, 0.3)


def test_a_masked_picture_shows_the_model_nothing_where_it_may_change(model, picture):
    left_red = picture
    left_blue = picture.copy()
    ImageDraw.Draw(left_blue).rectangle((0, 0, 80, 119), fill="blue")  # short of the mask, for interpolation
    query = {"text": "is green", "mask": {"box": [0, 0, 0.5, 1]}}
    red, blue = (compose(model, image=reference(each), **query) for each in (left_red, left_blue))
    assert np.abs(red - blue).max() < 1e-5
    unmasked = compose(model, image=reference(left_red), text="is green")
    assert np.abs(red - unmasked).max() > 1e-3


def test_a_mask_of_any_size_is_the_same_as_its_box(model, picture):
    drawn = Image.new("L", (37, 91))
    ImageDraw.Draw(drawn).rectangle((0, 0, 36, 44), fill=255)
    by_box = compose(model, image=reference(picture), text="x", mask=[0, 0, 1, 45 / 91])
    by_picture = compose(model, image=reference(picture), text="x", mask=reference(drawn))
    assert np.abs(by_box - by_picture).max() < 1e-5


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"image": "P", "text": "x", "template": "a $ {text}"}, "template"),
        ({"image": "P", "text": "x", "options": {"weights": {"image": 1.0}}}, "options.weights"),
        ({"image": ["P", "P"], "text": "x", "mask": [0, 0, 1, 1]}, "mask"),
        ({"text": "x", "mask": [0, 0, 1, 1], "composer": "compodiff"}, "mask"),
        ({"image": [1.0] * 128, "text": "x", "mask": [0, 0, 1, 1]}, "mask"),
        ({"image": "P", "text": "x", "options": {"steps": 0}}, "options.steps"),
        ({"image": "P", "text": "x", "options": {"steps": 10_000}}, "options.steps"),
        ({"image": "P", "text": "x", "options": {"guidance": [1.5, float("nan")]}}, "options.guidance.1"),
        ({"image": "P", "text": "x", "options": {"strength": 1}}, "options.strength"),
    ],
)
def test_what_it_cannot_take_is_refused_by_name(model, picture, query, says):
    image = query.get("image")
    if image == "P" or (isinstance(image, list) and image[0] == "P"):
        query = {**query, "image": reference(picture) if image == "P" else [reference(picture)] * 2}
    with pytest.raises(QueryError) as refusal:
        compose(model, **query)
    assert refusal.value.field == says


def test_a_mask_that_is_no_picture_is_refused_as_the_mask(model, picture):
    with pytest.raises(ImageError, match=r"^mask "):
        compose(model, image=reference(picture), text="x", mask=b"not a picture")


def test_the_schedule_visits_as_many_times_as_asked():
    for evaluations in (1, 2, 9, 50, 999, 1000):
        visited = schedule.times(evaluations)
        assert len(visited) == evaluations + 1
        assert visited[-1] == -1
        assert sorted(set(visited), reverse=True) == visited


@pytest.mark.parametrize("layout", ["safetensors", "torch", "sharded"])
def test_published_layouts_load(tmp_path, layout):
    config = {"embed_dim": 32, "model_depth": 1, "model_dim": 8, "model_heads": 2, "timesteps": 10}
    network = Network(NetworkConfig(dim=32, depth=1, heads=2, head_dim=8, text_width=48))
    weights = {PREFIX + published_name(name): tensor for name, tensor in network.state_dict().items()}
    weights["model.noise_scheduler.alphas_cumprod"] = schedule.cosine_schedule().alphas_cumprod
    (tmp_path / "config.json").write_text(json.dumps(config))
    if layout == "safetensors":
        save_file(weights, tmp_path / "model.safetensors")
    elif layout == "torch":
        torch.save(weights, tmp_path / "pytorch_model.bin")
    else:
        names = sorted(weights)
        places = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
        for file in sorted(set(places.values())):
            save_file({name: weights[name] for name in names if places[name] == file}, tmp_path / file)
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    loaded = load_network(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), loaded.parameters(), strict=True))


def test_a_published_folder_becomes_a_model_whose_texts_another_clip_reads(tmp_path):
    """The published model draws one CLIP's pictures from another's text states."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(0)
    text_config = CLIPTextConfig(hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    CLIPTextModelWithProjection(text_config).save_pretrained(tmp_path / "text")
    network = Network(NetworkConfig(dim=128, depth=1, heads=2, head_dim=8, text_width=48))
    (tmp_path / "published").mkdir()
    save_network(tmp_path / "published" / "model.safetensors", network)
    config = {"embed_dim": 128, "model_depth": 1, "model_dim": 8, "model_heads": 2, "timesteps": 10}
    (tmp_path / "published" / "config.json").write_text(json.dumps(config))
    text = BackboneSpec.parse(f"transformers:{tmp_path / 'text'},tower=text")
    with pytest.raises(CheckpointError, match="text backbone"):
        import_checkpoint(tmp_path / "published", BackboneSpec("tiny", ""), tmp_path / "model")
    import_checkpoint(tmp_path / "published", BackboneSpec("tiny", ""), tmp_path / "model", text)
    loaded = cir_vectorizer.load(str(tmp_path / "model"), "cpu")
    vector = loaded.compose([{"text": "a dress", "composer": "compodiff"}]).vectors[0]
    assert abs(np.linalg.norm(vector) - 1) < 1e-5
    assert loaded.default_composer == "compodiff"
    CLIPTextModelWithProjection(text_config).save_pretrained(tmp_path / "text")  # other weights under the same path
    with pytest.raises(BackboneMismatch, match=r"text states of transformers:.* with fingerprint .* its weights here"):
        cir_vectorizer.load(str(tmp_path / "model"), "cpu")
    record = json.loads((tmp_path / "model" / "model.json").read_text())
    del record["composers"]["compodiff"]["text_backbone"]["fingerprint"]  # as releases up to 0.1.0 wrote it
    (tmp_path / "model" / "model.json").write_text(json.dumps(record))
    assert "compodiff" in cir_vectorizer.load(str(tmp_path / "model"), "cpu").composers


def test_an_import_keeps_the_folders_other_composers_and_refuses_one_over_another_backbone(tmp_path):
    network = Network(NetworkConfig(dim=128, depth=1, heads=2, head_dim=8, text_width=128))
    (tmp_path / "published").mkdir()
    save_network(tmp_path / "published" / "model.safetensors", network)
    config = {"embed_dim": 128, "model_depth": 1, "model_dim": 8, "model_heads": 2, "timesteps": 10}
    (tmp_path / "published" / "config.json").write_text(json.dumps(config))
    torch.save({"epoch": 1, "Phi": Phi(128, 128, 16).state_dict()}, tmp_path / "phi.pt")
    tiny, folder = BackboneSpec("tiny", ""), tmp_path / "model"
    import_checkpoint(tmp_path / "phi.pt", tiny, folder)
    import_checkpoint(tmp_path / "published", tiny, folder)
    model = cir_vectorizer.load(str(folder), "cpu")
    assert {"lincir", "compodiff"} <= model.composers.keys()
    assert model.default_composer == "lincir"
    with pytest.raises(
        ModelError, match=r"holds composers over backbone tiny:, and this one is tiny:,target_pad=1\.25"
    ):
        import_checkpoint(tmp_path / "phi.pt", BackboneSpec.parse("tiny:,target_pad=1.25"), folder)
    assert {"lincir", "compodiff"} <= cir_vectorizer.load(str(folder), "cpu").composers.keys()


def test_models_import_replaces_a_composer_only_with_overwrite(tmp_path):
    for name, seed in (("first.pt", 1), ("second.pt", 2)):
        torch.manual_seed(seed)
        torch.save({"epoch": 1, "Phi": Phi(128, 128, 16).state_dict()}, tmp_path / name)

    def run(name, backbone, *options):
        given = ["models", "import", str(tmp_path / name), "--backbone", backbone, "--out", str(tmp_path / "model")]
        return CliRunner().invoke(main, [*given, *options])

    assert run("first.pt", "tiny:").exit_code == 0
    before = (tmp_path / "model" / "model.json").read_bytes()
    refused = run("second.pt", "tiny:")
    assert refused.exit_code == 1
    assert "already holds a finished lincir over backbone tiny:" in refused.output
    assert "name another --out, or replace it with --overwrite" in refused.output
    assert "--resume" not in refused.output
    elsewhere = run("second.pt", "tiny:,target_pad=1.25")
    assert elsewhere.exit_code == 1
    assert "replace them with --overwrite" in elsewhere.output
    assert (tmp_path / "model" / "model.json").read_bytes() == before
    assert run("second.pt", "tiny:", "--overwrite").exit_code == 0
    assert (tmp_path / "model" / "model.json").read_bytes() != before
    assert run("first.pt", "tiny:,target_pad=1.25", "--overwrite").exit_code == 0
    assert "target_pad=1.25" in str(cir_vectorizer.models.describe(str(tmp_path / "model")).backbone)


def test_weights_that_do_not_fit_are_named(tmp_path):
    network = Network(NetworkConfig(dim=32, depth=1, heads=2, head_dim=8, text_width=48))
    path = tmp_path / "w.safetensors"
    save_network(path, network)
    with pytest.raises(CheckpointError, match=r"to_time_embeds\.0\.1\.net.* has shape .* asks for"):
        load_network(path, NetworkConfig(dim=64, depth=1, heads=2, head_dim=8, text_width=48).to_record())
    with pytest.raises(CheckpointError, match=r"lacks transformer\.layers\.1"):
        load_network(path, NetworkConfig(dim=32, depth=2, heads=2, head_dim=8, text_width=48).to_record())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        load_network(path, network.config.to_record())
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_network(tmp_path / "empty")


def test_another_schedule_is_refused(tmp_path):
    network = Network(NetworkConfig(dim=32, depth=1, heads=2, head_dim=8, text_width=48))
    weights = {PREFIX + published_name(name): tensor for name, tensor in network.state_dict().items()}
    weights["model.noise_scheduler.betas"] = torch.linspace(1e-4, 0.02, 1000)
    weights["model.noise_scheduler.alphas_cumprod"] = torch.linspace(1, 0, 1000)
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="noise schedule"):
        load_network(tmp_path / "w.safetensors", network.config.to_record())


def test_a_network_of_another_backbone_is_refused():
    tiny = cir_vectorizer.load("tiny", "cpu")
    with pytest.raises(CheckpointError, match="picture backbone"):
        CompoDiff(tiny.backbone, Network(NetworkConfig(dim=32, depth=1, heads=2, head_dim=8, text_width=48)))
