"""Precision of the weights: chosen by the processor's flags, recorded beside the fingerprint, and never part of it."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from cir_vectorizer.backbones import precision
from cir_vectorizer.backbones.precision import is_native, resolve
from cir_vectorizer.cli import main
from cir_vectorizer.collections import ModelRecord, open_collection
from cir_vectorizer.doctor import examine
from cir_vectorizer.models import load
from cir_vectorizer.service.settings import Settings
from cir_vectorizer.sync.ray_decoders import _Encode
from tests.support.indexing import draw, run
from tests.support.serving import drawn, serving

CPU = torch.device("cpu")
FLAGS = "processor\t: 0\nflags\t\t: fpu avx2 avx512f {}\nbogomips\t: 5000\n"
TEXTS = ["red", "a dress with long sleeves", "", "blue and striped, " * 30, "rotes Kleid"]
QUERIES = [
    {"image": drawn(1), "text": "is red"},
    {"image": [drawn(2), drawn(3)], "text": "with stripes", "negative_text": ["dots", "blue"]},
    {"image": drawn(4), "text": "is red", "composer": "sum"},
    {"image": drawn(5), "text": "is green", "composer": "compodiff", "options": {"seed": 3}},
    {"image": drawn(7)},
]


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """Make this machine's processor one that has the given flags, or one that lists none."""

    def has(flags: str | None) -> None:
        path = tmp_path / f"cpuinfo {flags}"
        if flags is not None:
            path.write_text(FLAGS.format(flags))
        monkeypatch.setattr(precision, "CPU_INFO", path)

    return has


def picture(seed: int) -> Image.Image:
    """Return a random picture of coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((240, 240))


def cosines(one, other) -> np.ndarray:
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


class TestChoice:
    @pytest.mark.parametrize(
        ("flags", "chosen"),
        [
            ("avx512_bf16", torch.bfloat16),
            ("amx_tile amx_bf16 amx_int8", torch.bfloat16),
            ("avx512_vnni avx512bw", torch.float32),
            ("avx512_bf16x", torch.float32),
            (None, torch.float32),
        ],
    )
    def test_auto_takes_bfloat16_only_where_the_processor_computes_in_it(self, processor, flags, chosen, caplog):
        processor(flags)
        assert resolve("auto", CPU) == chosen
        assert load("tiny", "cpu", "auto", parts=()).backbone.dtype == chosen
        assert not caplog.records

    def test_an_emulated_precision_works_and_says_that_it_is_slower(self, processor, caplog):
        processor("avx512f")
        assert resolve("float32", CPU) == torch.float32
        assert not caplog.records
        model = load("tiny", "cpu", "bfloat16", parts=())
        assert model.precision == "bfloat16"
        assert model.embed_texts(["red"]).shape == (1, model.dim)
        assert [each.getMessage() for each in caplog.records] == [
            "this processor has no AVX512-BF16 or AMX, so bfloat16 is emulated here, many times slower than float32; give "
            "--precision auto"
        ]
        caplog.clear()
        assert resolve("float16", CPU) == torch.float16
        assert "no AVX512-FP16 or AMX-FP16, so float16" in caplog.text
        caplog.clear()
        processor("avx512_bf16")
        assert resolve("bfloat16", CPU) == torch.bfloat16
        assert not caplog.records

    @pytest.mark.parametrize(
        ("device", "capability", "chosen"),
        [
            ("cuda", (9, 0), torch.bfloat16),
            ("cuda", (8, 0), torch.bfloat16),
            ("cuda", (7, 5), torch.float32),
            ("mps", None, torch.float32),
        ],
    )
    def test_on_other_devices(self, device, capability, chosen, monkeypatch, caplog):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        assert resolve("auto", torch.device(device)) == chosen
        assert resolve("float16", torch.device(device)) == torch.float16
        assert is_native("float32", torch.device(device))
        assert not caplog.records

    def test_a_data_type_of_pytorch_is_taken_too(self):
        assert load("tiny", "cpu", torch.bfloat16, parts=()).precision == "bfloat16"
        assert load("tiny", "cpu", parts=()).precision == "float32"


class TestVectors:
    @pytest.mark.parametrize("name", ["tiny", "open_clip:ViT-S-32-alt,pretrained=random", "transformers"])
    def test_half_precision_agrees_with_float32(self, name, clip_folder):
        name = f"transformers:{clip_folder}" if name == "transformers" else name
        full, half = load(name, "cpu", parts=()), load(name, "cpu", "bfloat16", parts=())
        pixels = torch.stack([full.preprocess(picture(seed)) for seed in range(6)])
        for one, other in (
            (full.embed_pixels(pixels), half.embed_pixels(pixels)),
            (full.embed_texts(TEXTS), half.embed_texts(TEXTS)),
        ):
            assert other.dtype == np.float32
            assert cosines(one, other).min() > 0.999
        assert (half.fingerprint, half.backbone.text.fingerprint) == (full.fingerprint, full.backbone.text.fingerprint)
        assert (half.precision, full.precision) == ("bfloat16", "float32")

    def test_composed_queries_agree_and_composers_stay_in_float32(self, tiny):
        half = load("tiny", "cpu", "bfloat16")
        assert cosines(half.compose(QUERIES).vectors, tiny.compose(QUERIES).vectors).min() > 0.99
        assert {each.dtype for each in half.composers["lincir"].phi.parameters()} == {torch.float32}
        assert {each.dtype for each in half.composers["compodiff"].network.parameters()} == {torch.float32}


class TestRecords:
    def test_sync_records_the_precision_and_later_runs_in_another_one_go_on(self, photos, shop, tmp_path):
        def sync(*more):
            report = tmp_path / "r.json"
            command = ["sync", photos, "--to", shop.address, "--model", "tiny", "--report", report, *more]
            return CliRunner().invoke(main, [*map(str, command)])

        first = sync("--precision", "bfloat16")
        assert first.exit_code == 0, first.output
        info = shop.info()
        assert (info.precision, info.fingerprint) == ("bfloat16", load("tiny", "cpu", parts=()).fingerprint)
        shop.close()
        draw(photos / "new.png", 99)
        second = sync()
        assert second.exit_code == 0, second.output
        assert "added 1, changed 0, unchanged 5" in second.output
        assert "Note" not in second.output
        assert shop.info().precision == "bfloat16"

    def test_a_search_in_half_precision_over_a_float32_index_is_silent_and_doctor_tells(
        self, photos, shop, tiny, processor
    ):
        processor("avx512_bf16")
        run(photos, shop, tiny)
        shop.close()
        command = ["search", "--in", str(shop.address), "--model", "tiny", "--image", str(photos / "a.jpg"), "--json"]
        outputs = [CliRunner().invoke(main, [*command, "--precision", each]) for each in ("float32", "bfloat16")]
        assert [each.exit_code for each in outputs] == [0, 0]
        assert [each.stderr for each in outputs] == ["", ""]
        half = ModelRecord.of(load("tiny", "cpu", "bfloat16", parts=()))
        said = {each.check: (each.level, each.sentence) for each in examine(shop, half)}
        assert said["precision"] == (
            "ok",
            "its pictures were embedded in float32; objects keep their places in all but near ties of searches in another "
            "precision (--precision float32 is the same)",
        )
        assert "precision" not in {each.check for each in examine(shop, ModelRecord.of(tiny))}

    def test_int8_beside_another_precision_is_said_plainly(self, photos, shop, tiny):
        """The model is a fake that calls itself int8."""

        class Int8:
            def __getattr__(self, name):
                return "int8" if name == "precision" else getattr(tiny, name)

        run(photos, shop, Int8())
        report = run(photos, shop, tiny)
        assert report.notes == []  # nothing was encoded
        draw(photos / "new.png", 99)
        said = (
            "the collection's pictures were embedded in int8, and this model runs in float32, so objects with close scores "
            "may change places; use --precision int8 here too"
        )
        assert run(photos, shop, tiny).notes == [said]
        shop.close()
        command = ["search", "--in", str(shop.address), "--model", "tiny", "--image", str(photos / "a.jpg")]
        assert f"Note: {said}" in CliRunner().invoke(main, command).stderr
        found = {each.check: each for each in examine(shop, ModelRecord.of(tiny))}
        assert "may change places" in found["precision"].sentence
        shop.close()
        with serving(collections={"shop": [open_collection(shop.address)]}) as service:
            answer = service.post("/v1/search", {"query": {"image": drawn(1)}})
            assert said in answer.json()["notes"]

    def test_the_service_tells_its_precision(self):
        with serving(vectorizers={"tiny": load("tiny", "cpu", "bfloat16")}) as service:
            (model,) = service.client.get("/v1/models").json()["data"]
            answer = service.post("/v1/compose", {"queries": QUERIES}).json()
        assert model["precision"] == "bfloat16"
        assert cosines(answer["vectors"], load("tiny", "cpu").compose(QUERIES).vectors).min() > 0.99

    def test_a_ray_worker_runs_in_the_same_precision(self, tiny):
        worker = _Encode("tiny", "cpu", tiny.fingerprint, "bfloat16")
        assert worker._vectorizer.precision == "bfloat16"


class TestOptions:
    @pytest.mark.parametrize(
        ("given", "weights"),
        [
            ({}, "float32"),
            ({"precision": "auto"}, "auto"),
            ({"precision": "int8"}, "int8"),
            ({"precision": "float16", "half": True}, "float16"),
            ({"precision": "bfloat16", "dtype": "bfloat16"}, "bfloat16"),
        ],
    )
    def test_serve_has_one_precision(self, given, weights, monkeypatch):
        for name in given:
            monkeypatch.setenv(f"CIR_{name.upper()}", str(given[name]))
        assert Settings().weights == Settings(**given).weights == weights

    @pytest.mark.parametrize(
        ("command", "says"),
        [
            (
                ["serve", "--precision", "auto", "--half"],
                "precision auto and dtype float16 differ; give one of the two",
            ),
            (["serve", "--precision", "float32", "--dtype", "bfloat16"], "precision float32 and dtype bfloat16 differ"),
            (
                ["serve", "--precision", "bf16"],
                "--precision: Input should be 'auto', 'float32', 'bfloat16', 'float16' or",
            ),
            (["sync", ".", "--to", "qdrant:x/y", "--precision", "bf16"], "'bf16' is not one of 'auto', 'float32'"),
            (
                ["sync", ".", "--to", "qdrant:x/y", "--precision", "auto", "--service", "http://x"],
                "--precision is for a local model; leave it out with --service",
            ),
            (
                ["search", "--in", "qdrant:x/y", "--text", "x", "--precision", "float32", "--service", "http://x"],
                "--precision is for a local model; leave it out with --service",
            ),
            (
                ["sync", ".", "--to", "qdrant:x/y", "--precision", "auto", "--vectorize", "server"],
                "--precision is of vectors that are made here, and --vectorize server has the server make them; give one",
            ),
        ],
    )
    def test_what_does_not_go_together_is_refused(self, command, says):
        result = CliRunner().invoke(main, command)
        assert result.exit_code != 0
        assert says in result.output
