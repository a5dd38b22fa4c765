"""`cir-vectorizer train-compodiff`: pictures, texts and triplets in, a composer out, in runs that can be stopped."""

import functools
import json
import math
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import cir_vectorizer
from cir_vectorizer.backbones import BackboneSpec
from cir_vectorizer.cli import main
from cir_vectorizer.composers.compodiff.checkpoint import load_network, save_network
from cir_vectorizer.composers.compodiff.composer import CompoDiff
from cir_vectorizer.composers.compodiff.network import Network, NetworkConfig
from cir_vectorizer.errors import CheckpointError, ModelError, SourceError
from cir_vectorizer.models import read_record
from cir_vectorizer.models.published import TINY_FOLDER
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer_trainer.compodiff.denoise import denoise
from cir_vectorizer_trainer.compodiff.examples import NOTHING, Data, Examples, shuffled, without
from cir_vectorizer_trainer.compodiff.folder import STATE_FILE, Folder, noise_scale, train
from cir_vectorizer_trainer.compodiff.frozen import assemble, text_states
from cir_vectorizer_trainer.compodiff.tables import Tables
from cir_vectorizer_trainer.compodiff.trainer import CompoDiffTrainer, Hyperparameters
from examples.demo.catalog import SEEN, caption, draw

SMALL = ("--depth", 1, "--heads", 2, "--head-dim", 8, "--batch-size", 16, "--masks", 1, "--device", "cpu")


@pytest.fixture(scope="session")
def drawn_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 pictures, shop.csv (image, caption, attributes) and triplets.csv."""
    folder = tmp_path_factory.mktemp("shop")
    rng = random.Random(0)
    lines = ["image,caption,category,colour,pattern"]
    for i in range(40):
        item = rng.choice(SEEN[:60])
        draw(item, rng, 64).save(folder / f"{i}.png")
        lines.append(f'{i}.png,"{caption(item, rng)}",{item.category},{item.colour},{item.pattern}')
    (folder / "shop.csv").write_text("\n".join(lines))
    made = invoke("make-triplets", folder / "shop.csv", "--out", folder / "triplets.csv", "--count", 200)
    assert made.exit_code == 0, made.output
    return folder


@pytest.fixture
def shop(drawn_shop, tmp_path) -> Path:
    """A copy that the test may damage."""
    return Path(shutil.copytree(drawn_shop, tmp_path / "shop"))


def invoke(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def train_on(shop, out, *arguments):
    tables = ("--pairs", shop / "shop.csv", "--triplets", shop / "triplets.csv")
    return invoke("train-compodiff", *tables, "--out", out, *SMALL, *arguments)


def state_of(folder: Path) -> dict:
    return torch.load(folder / STATE_FILE, weights_only=True)


def same(a, b) -> bool:
    """Tell whether two states are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


# --- the command -------------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_writes_a_model_that_composes_beside_its_other_composers(drawn_shop, tmp_path):
    out = tmp_path / "model"
    result = train_on(drawn_shop, out, "--prior-steps", 150, "--steps", 150, "--lr", "3e-3", "--half")
    assert result.exit_code == 0, result.output
    record = read_record(out)
    training = record["composers"]["compodiff"]["training"]
    assert training["complete"]
    assert training["best_validation_loss"] < 0.5 * training["first_validation_loss"]
    assert (training["prior_steps"], training["steps"]) == (150, 150)
    assert (training["pairs"], training["triplets"], training["masked"]) == (40, 200, 40)
    assert record["default_composer"] == read_record(TINY_FOLDER)["default_composer"]
    model = cir_vectorizer.load(str(out), "cpu")
    assert {"lincir", "compodiff"} <= model.composers.keys()
    query = {"image": drawn_shop / "3.png", "text": "in red", "mask": [0, 0, 0.5, 1], "composer": "compodiff"}
    assert abs(np.linalg.norm(model.compose([query]).vectors) - 1) < 1e-5


def test_pictures_in_the_own_network_need_the_option_that_the_sentence_names(shop, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(SimpleHTTPRequestHandler, directory=str(shop)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    rows = [f"http://127.0.0.1:{server.server_port}/{i}.png,a hat number {i}" for i in range(4)]
    (shop / "web.csv").write_text("\n".join(["image,caption", *rows]))
    arguments = ("train-compodiff", "--pairs", shop / "web.csv", "--out", tmp_path / "model", "--steps", 1, *SMALL)
    try:
        refused, allowed = invoke(*arguments), invoke(*arguments, "--prior-steps", 1, "--private-urls")
    finally:
        server.shutdown()
        server.server_close()
    assert "or give --private-urls if your own network is meant" in refused.output
    assert allowed.exit_code == 0, allowed.output


def test_a_stopped_command_is_saved_and_goes_on_without_reading_a_picture_again(shop, tmp_path):
    out = tmp_path / "model"
    arguments = ["train-compodiff", "--pairs", shop / "shop.csv", "--triplets", shop / "triplets.csv", "--out", out,
                 "--constant-lr", *SMALL]  # fmt: skip
    command = [sys.executable, "-m", "cir_vectorizer.cli", *map(str, arguments)]
    process = subprocess.Popen(
        [*command, "--prior-steps", "5", "--steps", "1000000"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not (out / STATE_FILE).exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "go on with --resume" in said
    assert not read_record(out)["composers"]["compodiff"]["training"]["complete"]
    done = state_of(out)["step"]
    for picture in shop.glob("*.png"):
        picture.unlink()
    result = invoke(*arguments, "--steps", done, "--resume")
    assert result.exit_code == 0, result.output
    assert f"resuming after step {done:,}" in result.output
    assert state_of(out)["step"] == done + 5
    assert state_of(out)["prior_steps"] == 5


def test_what_cannot_be_used_is_reported_and_left_out(shop, tmp_path):
    (shop / "3.png").write_bytes(b"no picture")
    (shop / "4.png").unlink()
    with (shop / "shop.csv").open("a") as file:
        file.write("\n5.png,,x,x,x\n,a red dress,x,x,x\n6.png,more,cells,than,columns,here\n")
    out = tmp_path / "model"
    result = train_on(shop, out, "--prior-steps", 2, "--steps", 2)
    assert result.exit_code == 0, result.output
    for words in ("3.png is", "4.png is not in", "row 41 has nothing in column 'caption'", "row 42", "row 43"):
        assert words in result.output
    training = read_record(out)["composers"]["compodiff"]["training"]
    assert training["pairs"] == 38
    assert 100 < training["triplets"] < 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give --pairs, --triplets or both"),
        (("--triplets", "shop.csv"), "no column that is clearly the reference's"),
        (("--triplets", "triplets.csv", "--triplet-columns", "reference,words,target"), "no column 'words'"),
        (("--triplets", "triplets.csv", "--triplet-columns", "reference,target"), "REFERENCE,TEXT,TARGET"),
        (("--pairs", "triplets.csv"), "its columns are reference, text, target"),
        (("--pairs", "none.csv"), "does not exist"),
        (("--pairs", "0.png"), "must end in one of"),
        (("--pairs", "shop.csv", "--steps", "0"), "--prior-steps"),
        (("--triplets", "triplets.csv", "--prior-steps", "5"), "stage 1 needs pictures with texts"),
        (("--pairs", "shop.csv", "--resume"), "run without --resume"),
        (("--pairs", "gone.csv"), "no row is left to train on"),
        (("--pairs", "one.csv"), "too few"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(shop, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(shop)
    Path("gone.csv").write_text("image,text\nx.png,a red dress\n")
    Path("one.csv").write_text("image,text\n1.png,a red dress\n1.png,a dress\n")
    result = invoke("train-compodiff", *arguments, "--out", tmp_path / "out", *SMALL)
    assert result.exit_code == 1, result.output
    assert words in result.output
    assert "Traceback" not in result.output


def test_resume_refuses_another_learning_rate_and_a_damaged_state(shop, tmp_path):
    out = tmp_path / "model"
    assert train_on(shop, out, "--prior-steps", 1, "--steps", 1).exit_code == 0
    result = train_on(shop, out, "--lr", 0.1, "--resume")
    assert result.exit_code == 1
    assert "had lr 0.001, not 0.1" in result.output
    (out / STATE_FILE).write_bytes(b"junk")
    assert "train anew with --overwrite" in train_on(shop, out, "--resume").output


def test_resume_refuses_another_last_step_where_the_learning_rate_falls_towards_it(shop, tmp_path):
    falling, constant = tmp_path / "falling", tmp_path / "constant"
    assert train_on(shop, falling, "--prior-steps", 1, "--steps", 3).exit_code == 0
    result = train_on(shop, falling, "--prior-steps", 1, "--steps", 5, "--resume")
    assert result.exit_code == 1
    assert "falls to zero at step 4, and 6 steps were asked for in all; give --steps 3, or train anew" in result.output
    assert train_on(shop, constant, "--prior-steps", 1, "--steps", 3, "--constant-lr").exit_code == 0
    result = train_on(shop, constant, "--prior-steps", 1, "--steps", 5, "--constant-lr", "--resume")
    assert result.exit_code == 0, result.output
    assert state_of(constant)["step"] == 6


def test_noise_is_in_the_unit_of_the_embeddings(tiny):
    data = synthetic()
    width = data.embeddings.shape[1]
    longer = replace(data, embeddings=8 * data.embeddings)
    scale = noise_scale(tiny.backbone, data, None)
    mean_norm = data.embeddings[data.pairs.target.unique()].norm(dim=1).mean().item()
    assert scale == pytest.approx(1.4 * mean_norm / tiny.dim**0.5, rel=0.1)
    assert noise_scale(tiny.backbone, longer, None) == pytest.approx(8 * scale, rel=0.01)
    assert noise_scale(tiny.backbone, data, 2.8) == pytest.approx(2 * scale, rel=0.01)
    for name in ("open_clip:ViT-L-14-quickgelu,pretrained=openai", "transformers:openai/clip-vit-large-patch14"):
        published = SimpleNamespace(spec=BackboneSpec.parse(name), dim=width)
        assert noise_scale(published, longer, None) == 1.0


def test_a_network_draws_with_the_noise_that_it_was_trained_under(tiny, tmp_path):
    torch.manual_seed(0)
    quiet = Network(NetworkConfig(128, 1, 2, 8, 128, noise_scale=1e-6))
    save_network(tmp_path / "w.safetensors", quiet)
    loaded = load_network(tmp_path / "w.safetensors", quiet.config.to_record())
    assert loaded.config.noise_scale == 1e-6
    composer = CompoDiff(tiny.backbone, loaded)
    drawn = [
        composer.compose([composer.prepare(ComposedQuery.parse(
            {"text": "red", "composer": "compodiff", "options": {"seed": seed}}
        ))], [torch.empty(0, 128)])
        for seed in (1, 2)
    ]  # fmt: skip
    assert (drawn[0] - drawn[1]).abs().max() < 1e-3
    with pytest.raises(CheckpointError, match="noise_scale 0; give a positive number"):
        load_network(tmp_path / "w.safetensors", {**quiet.config.to_record(), "noise_scale": 0})


def test_texts_may_be_read_by_another_model(drawn_shop, tmp_path, clip_folder):
    out = tmp_path / "model"
    result = train_on(drawn_shop, out, "--prior-steps", 2, "--steps", 2, "--text-model", clip_folder)
    assert result.exit_code == 0, result.output
    record = read_record(out)["composers"]["compodiff"]
    assert record["text_backbone"]["loader"] == "transformers"
    assert record["network"]["text_width"] == 32
    assert (
        record["text_backbone"]["fingerprint"] == cir_vectorizer.load(str(clip_folder), "cpu").backbone.text.fingerprint
    )
    vectors = cir_vectorizer.load(str(out), "cpu").compose([{"text": "a red hat", "composer": "compodiff"}]).vectors
    assert vectors.shape == (1, 128)


# --- tables ------------------------------------------------------------------------------------------


def test_tables_name_each_picture_and_text_once_and_a_list_of_texts_makes_rows(tmp_path):
    (tmp_path / "sub").mkdir()
    pairs, triplets = tmp_path / "pairs.jsonl", tmp_path / "sub" / "t.tsv"
    pairs.write_text(
        json.dumps({"img": "a.png", "captions": ["red  hat", "a hat"]})
        + "\n"
        + json.dumps({"img": "./a.png", "captions": "a hat"})
    )
    triplets.write_text("candidate\tcaption\ttarget\n../a.png\tred hat\t../b.png\n")
    tables = Tables()
    tables.read_pairs(pairs)
    tables.read_triplets(triplets)
    assert tables.texts == ["", "red hat", "a hat"]
    assert [list(column) for column in tables.pairs] == [[0, 0, 0], [1, 2, 2]]
    assert [list(column) for column in tables.triplets] == [[0], [1], [1]]
    assert tables.failed == 0


def test_pictures_inside_a_parquet_table_are_read(drawn_shop, tmp_path, tiny):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    content = [(drawn_shop / f"{i}.png").read_bytes() for i in (0, 1)]
    pq.write_table(pa.table({"image": content, "text": ["one", "two"]}), tmp_path / "t.parquet")
    tables = Tables()
    tables.read_pairs(tmp_path / "t.parquet")
    data, embedded = assemble(tables, tiny.backbone, tiny.backbone.text, masks=0)
    assert embedded.readable.tolist() == [True, True]
    assert data.masked is not None
    assert len(data.masked) == 0


def test_masked_pictures_are_what_a_masked_query_embeds(drawn_shop, tiny):
    tables = Tables()
    tables.read_pairs(drawn_shop / "shop.csv")
    data, _ = assemble(tables, tiny.backbone, tiny.backbone.text, masks=2)
    masked = data.masked
    assert masked is not None
    assert len(masked) == 2 * 40
    assert len(set(masked.reference.tolist())) == 80
    assert (data.embeddings[masked.reference] != data.embeddings[masked.target]).any(1).float().mean() > 0.9
    assert 0.1 < data.masks.mean() < 0.6
    plain = tiny.backbone.encode_images(tiny.preprocess(draw_of(drawn_shop, 5))[None])
    assert torch.allclose(data.embeddings[5], plain[0], atol=1e-4)


def draw_of(folder, number):
    from cir_vectorizer.pictures.images import open_image

    return open_image(folder / f"{number}.png")


def test_text_states_that_find_no_room_are_encoded_batch_by_batch(tiny):
    texts = ["", "a red hat", "a blue dress"]
    kept, asked = text_states(texts, tiny.backbone.text, 2**30), text_states(texts, tiny.backbone.text, 10)
    assert isinstance(kept, torch.Tensor)
    assert (kept[[2, 0]].float() - asked(torch.tensor([2, 0]))).abs().max() < 5e-3


# --- the trainer -------------------------------------------------------------------------------------

WIDTH = 16


def synthetic(pictures: int = 80, texts: int = 8) -> Data:
    """A synthetic world: the pictures of a text lie around one point."""
    generator = torch.Generator().manual_seed(0)

    def some(most, count=300):
        return torch.randint(most, (count,), generator=generator)

    places = torch.randn(texts, WIDTH, generator=generator)[torch.arange(pictures) % texts]
    target, reference = some(pictures), some(pictures)
    return Data(
        embeddings=places + 0.1 * torch.randn(pictures, WIDTH, generator=generator),
        states=torch.randn(texts, 77, 12, generator=generator),
        empty=0,
        pairs=Examples(target % texts, target),
        triplets=Examples(target % texts, target, reference),
        masked=Examples(reference % texts, reference, reference, some(4)),
        masks=(torch.rand(4, 64, 64, generator=generator) > 0.5).float(),
    )


def small_network() -> Network:
    torch.manual_seed(0)
    return Network(NetworkConfig(dim=WIDTH, depth=2, heads=2, head_dim=8, text_width=12))


def trainer_of(data=None, **settings) -> CompoDiffTrainer:
    chosen = {"batch_size": 12, "validate_every": 20, "warmup": 3, "lr": 3e-3, **settings}
    return CompoDiffTrainer(small_network(), data or synthetic(), Hyperparameters(**chosen))


def last(iterator):
    *_, found = iterator
    return found


@pytest.mark.parametrize("settings", [{}, {"draws": 1, "rows_per_text": 4, "decay": "constant"}])
def test_both_stages_lower_the_loss(settings):
    trainer = trainer_of(**settings)
    progress = last(trainer.run(80, 100))
    by_stage = {
        stage: [entry.loss for entry in trainer.history if entry.stage == stage] for stage in ("prior", "composed")
    }
    assert by_stage["prior"][-1] < 0.3 * by_stage["prior"][0]
    assert by_stage["composed"][-1] < 0.7 * by_stage["composed"][0]
    assert progress.rows == 180 * 12 * trainer.hyperparameters.draws
    assert trainer.best_validation.loss == min(by_stage["composed"])
    assert trainer.history[-1].tasks.keys() == {"pairs", "triplets", "masked"}


@pytest.mark.parametrize("stops", [[4], [10], [13], [3, 7, 12]])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tiny, tmp_path, stops):
    def wide():
        data = synthetic()
        padded = torch.nn.functional.pad(data.embeddings, (0, 128 - WIDTH))
        torch.manual_seed(0)
        network = Network(NetworkConfig(dim=128, depth=1, heads=2, head_dim=8, text_width=12))
        data = Data(padded, data.states, 0, data.pairs, data.triplets, data.masked, data.masks)
        return CompoDiffTrainer(
            network, data, Hyperparameters(batch_size=8, validate_every=5, warmup=4, rows_per_text=2)
        )

    whole, parts = (Folder(tmp_path / name, TINY_FOLDER, tiny.backbone) for name in ("whole", "parts"))
    assert train(wide(), whole, 10, 8)
    trainer = wide()
    for stop in stops:
        assert not train(trainer, parts, 10, 8, should_stop=lambda t=trainer, s=stop: t.step == s)
        trainer = wide()
        parts.resume(trainer)
        assert trainer.step == stop
    assert train(trainer, parts, 10, 8)
    assert same(state_of(whole.path), state_of(parts.path))


def test_a_state_of_other_data_or_of_a_longer_first_stage_is_refused():
    trainer = trainer_of()
    last(trainer.run(2, 2))
    state = trainer.state()
    for other in (
        trainer_of(synthetic(pictures=72)),
        CompoDiffTrainer(Network(NetworkConfig(WIDTH, 1, 2, 8, 12)), synthetic()),
    ):
        with pytest.raises(ModelError, match="other pairs"):
            other.load_state(state)
    again = trainer_of()
    again.load_state(state)
    with pytest.raises(ModelError, match="go on with --prior-steps 2"):
        next(again.run(3, 9))


def test_the_average_follows_the_weights_and_is_what_is_kept():
    trainer = trainer_of()
    before = {name: each.clone() for name, each in trainer.network.named_parameters()}
    next(trainer.run(0, 1))
    for name, averaged in trainer.ema.named_parameters():
        now = dict(trainer.network.named_parameters())[name]
        assert torch.allclose(averaged, 0.1 * before[name] + 0.9 * now, atol=1e-6)
    assert same(trainer.best, dict(trainer.ema.state_dict()))
    assert same(dict(trainer.best_network().state_dict()), trainer.best)


def test_no_target_is_both_trained_on_and_validated_by():
    trainer = trainer_of(validation_share=0.3)
    trained = {int(i) for rows in trainer.examples.values() for i in rows.target}
    held = {int(i) for rows in trainer.held_out.values() for i in rows.target}
    assert held
    assert not trained & held


def test_dropped_texts_become_the_empty_one_and_dropped_pictures_nothing_and_masks_stay():
    rows = Examples(
        torch.full((20_000,), 5), torch.zeros(20_000).long(), torch.ones(20_000).long(), torch.ones(20_000).long()
    )
    dropped = without(rows, (0.3, 0.2, 0.1), 0, torch.Generator().manual_seed(0))
    text, image = dropped.text == 0, dropped.reference == NOTHING
    shares = [(text & ~image), (~text & image), (text & image)]
    assert [share.float().mean().item() for share in shares] == pytest.approx([0.3, 0.2, 0.1], abs=0.02)
    assert torch.equal(dropped.mask, rows.mask)


def test_every_example_is_seen_once_a_pass_and_texts_stay_together():
    text = torch.randint(5, (103,), generator=torch.Generator().manual_seed(0))
    for together in (1, 4):
        order = shuffled(text, together, torch.Generator().manual_seed(1))
        assert sorted(order.tolist()) == list(range(103))
    runs = 1 + int((text[order][1:] != text[order][:-1]).sum())
    assert runs <= math.ceil(103 / 4) + 5
    trainer = trainer_of(synthetic())
    rows = len(trainer.examples["triplets"])
    passes = torch.cat([trainer._passes["triplets"].indices(at, 7) for at in range(0, 2 * rows, 7)])
    assert sorted(passes[:rows].tolist()) == list(range(rows))


def test_training_multiplies_in_another_order_and_gets_the_network_s_numbers():
    network = small_network()
    states, images, masks = torch.randn(5, 77, 12), torch.randn(5, 1, WIDTH), (torch.rand(5, 64, 64) > 0.5).float()
    x, times = torch.randn(15, WIDTH), network.embed_times(torch.randint(1000, (15,)))
    expected = network(x, times, network.remember_whole(states, images, masks))
    context = torch.cat([network.embed_texts(states), images, network.embed_masks(masks)], dim=1)
    assert (denoise(network, x, times, context) - expected).abs().max() < 1e-5


def test_a_function_gives_states_as_well_as_a_table_does():
    data = synthetic()
    states = data.states
    asked = Data(data.embeddings, lambda index: states[index], 0, data.pairs, data.triplets, data.masked, data.masks)
    losses = [[each.loss for each in trainer_of(each).run(2, 3)] for each in (data, asked)]
    assert losses[0] == losses[1]


def test_tasks_without_examples_leave_their_share_to_the_others():
    data = synthetic()
    alone = trainer_of(Data(data.embeddings, data.states, 0, triplets=data.triplets))
    assert len(alone._batch("composed").examples) == 12
    assert last(alone.run(0, 5)).validation.tasks.keys() == {"triplets"}
    with pytest.raises(SourceError, match="stage 1"):
        next(alone.run(3, 5))
    with pytest.raises(SourceError, match="too few"):
        trainer_of(Data(data.embeddings, data.states, 0))


def test_a_loss_that_is_lost_ends_the_run_with_a_sentence():
    data = synthetic()
    data.embeddings[3] = torch.inf
    with pytest.raises(ModelError, match="a lower --lr"):
        last(trainer_of(data).run(5, 100))
