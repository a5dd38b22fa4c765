"""The training loop: its settings, several processes, and states that are saved by time."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from cir_vectorizer.backbones import BackboneSpec, load_backbone
from cir_vectorizer.cli import main
from cir_vectorizer.errors import ModelError
from cir_vectorizer.models import read_record
from cir_vectorizer_trainer.captions.keywords import BuiltinTagger
from cir_vectorizer_trainer.captions.store import MANY
from cir_vectorizer_trainer.phi import processes
from cir_vectorizer_trainer.phi.examples import BLOCK, order_of_pass
from cir_vectorizer_trainer.phi.loop import LoopSettings
from cir_vectorizer_trainer.phi.trainer import Hyperparameters, PhiTrainer
from cir_vectorizer_trainer.phi.training import train as run
from examples.demo.catalog import CATEGORIES, COLOURS
from tests.training import two_processes

CAPTIONS = [f"a photo of a {colour} {kind}" for colour in COLOURS for kind in CATEGORIES]
TORCHRUN = (
    sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint",
    "127.0.0.1:0", "-m",
)  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
OPTIONS = ("--batch-size", "16", "--lr", "1e-3", "--device", "cpu")


def train(*arguments):
    return CliRunner().invoke(main, ["train", *map(str, arguments), *OPTIONS])


@pytest.fixture
def captions(tmp_path) -> Path:
    path = tmp_path / "captions.txt"
    path.write_text("\n".join(CAPTIONS))
    return path


def assert_close(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float) -> None:
    """Compare gradients, tensor by tensor; ones that are zero but for rounding (the keys' biases) by the largest of all."""
    largest = max(each.abs().max() for each in theirs)
    for one, other in zip(ours, theirs, strict=True):
        scale = max(other.abs().max(), 1e-2 * largest)
        assert (one - other).abs().max() <= tolerance * scale


def phi_trainer(loop: LoopSettings, batch_size: int = 16) -> PhiTrainer:
    backbone = load_backbone(BackboneSpec("tiny", ""), "cpu")
    return PhiTrainer(backbone, CAPTIONS, BuiltinTagger(), Hyperparameters(batch_size=batch_size, lr=1e-3), loop=loop)


@pytest.mark.parametrize(
    ("loop", "rates"),
    [
        (LoopSettings(), [1, 1, 1, 1]),
        (LoopSettings("linear"), [1, 0.75, 0.5, 0.25]),
        (LoopSettings("cosine"), [1, 0.8536, 0.5, 0.1464]),
        (LoopSettings("constant", warmup=2), [0.5, 1, 1, 1]),
        (LoopSettings("linear", warmup=2), [0.5, 1, 1, 0.5]),
    ],
)
def test_the_learning_rate_follows_its_schedule(loop, rates):
    assert [loop.rate(step, 4) for step in range(4)] == pytest.approx(rates, abs=1e-4)
    trainer = phi_trainer(loop)
    seen = [trainer.optimizer.param_groups[0]["lr"] for _ in trainer.run(4)]
    assert seen == pytest.approx([1e-3 * rate for rate in rates], abs=1e-7)


@pytest.mark.parametrize("objective", ["lincir", "edits"])
def test_a_batch_read_in_parts_gives_the_numbers_of_one_part(objective):
    """In float64: the loss and the gradients of three parts are those of one."""
    found = [two_processes.gradients(objective, torch.float64, LoopSettings(accumulate=parts)) for parts in (1, 3)]
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-9)
    assert_close(found[0][1], found[1][1], 1e-9)


def test_a_gradient_is_clipped_to_its_norm():
    trainer = phi_trainer(LoopSettings(clip=1e-4))
    next(trainer.run(1))
    norm = torch.stack([each.grad.norm() for each in trainer.phi.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-4, rel=1e-3)


def test_the_moving_average_of_the_weights_is_validated_and_kept():
    plain, averaged = (phi_trainer(LoopSettings(ema=ema)) for ema in (None, 0.9))
    weights = []
    for _ in plain.run(3):
        weights.append({name: tensor.clone() for name, tensor in plain.phi.state_dict().items()})
    expected = {name: tensor.clone() for name, tensor in phi_trainer(LoopSettings()).phi.state_dict().items()}
    for step, now in enumerate(weights):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = {name: decay * tensor + (1 - decay) * now[name] for name, tensor in expected.items()}
    for _ in averaged.run(3):
        pass
    assert all(torch.equal(averaged.phi.state_dict()[name], tensor) for name, tensor in weights[-1].items())
    for name, tensor in averaged.best.items():
        torch.testing.assert_close(tensor, expected[name])
    assert averaged.history[-1].loss != plain.history[-1].loss


def test_a_resumed_run_with_every_setting_equals_an_uninterrupted_one(captions, tmp_path):
    settings = ("--schedule", "cosine", "--warmup", 2, "--clip", 1, "--ema", 0.9, "--accumulate", 2)
    common = ("--captions", captions, "--steps", 12, *settings)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(*common, "--out", whole).exit_code == 0
    trainer = CliRunner()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cir_vectorizer_trainer.progress.time.monotonic", iter(range(10**9)).__next__)
        patched.setattr("cir_vectorizer_trainer.phi.training.Training._train_step", _dies_at(7))
        stopped = trainer.invoke(main, ["train", *map(str, (*common, "--out", parts, "--save-every", 0)), *OPTIONS])
        assert isinstance(stopped.exception, Killed)
    resumed = train(*common, "--out", parts, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "resuming after step 7" in resumed.output
    states = [torch.load(folder / "training.pt", weights_only=True) for folder in (whole, parts)]
    for name in ("learning", "average", "best"):
        assert all(torch.equal(tensor, states[1][name][key]) for key, tensor in states[0][name].items())
    record = read_record(parts)["composers"]["lincir"]["training"]
    assert (record["schedule"], record["warmup"], record["clip"], record["ema"]) == ("cosine", 2, 1.0, 0.9)


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(captions, tmp_path):
    """kill -9 while it trains: the resumed run has the weights of an uninterrupted one."""
    common = [
        sys.executable,
        "-m",
        "cir_vectorizer.cli",
        "train",
        "--captions",
        str(captions),
        "--steps",
        "150",
        *OPTIONS,
    ]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    subprocess.run([*common, "--out", str(whole)], check=True, capture_output=True)
    killed = subprocess.Popen([*common, "--out", str(parts), "--save-every", "0"], stderr=subprocess.DEVNULL)
    while not (parts / "training.pt").is_file():
        assert killed.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    subprocess.run([*common, "--out", str(parts), "--resume"], check=True, capture_output=True)
    states = [torch.load(folder / "training.pt", weights_only=True) for folder in (whole, parts)]
    assert all(torch.equal(tensor, states[1]["learning"][name]) for name, tensor in states[0]["learning"].items())


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["lincir", "edits"])
def test_the_command_trains_in_two_processes_as_in_one(objective, captions, tmp_path):
    common = ("train", "--objective", objective, "--captions", str(captions), "--steps", "6", *OPTIONS)
    assert CliRunner().invoke(main, [*common, "--out", str(tmp_path / "one")]).exit_code == 0
    two = (*TORCHRUN, "cir_vectorizer.cli", *common, "--out", str(tmp_path / "two"))
    done = subprocess.run(two, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "two"), "the first process alone prints"
    curves = [
        [entry["loss"] for entry in read_record(tmp_path / name)["composers"]["lincir"]["training"]["curve"]]
        for name in ("one", "two")
    ]
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)


def test_several_processes_refuse_standard_input_and_different_material(monkeypatch):
    monkeypatch.setattr(processes, "size", lambda: 2)
    result = train("--captions", "-", "--out", "model")
    assert "several processes cannot share standard input" in result.output
    monkeypatch.setattr(
        processes.distributed,
        "all_gather_object",
        lambda found, own: found.__setitem__(slice(None), [own, {"captions": "b"}]),
    )
    with pytest.raises(ModelError, match="different material \\(captions\\)"):
        processes.check_equal({"captions": "a"})


class Killed(Exception):
    pass


def _dies_at(step: int):
    from cir_vectorizer_trainer.phi.training import Training

    original = Training._train_step

    def dying(self, steps):
        if self.step == step:
            raise Killed
        original(self, steps)

    return dying


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("--schedule", "linear"), "had schedule cosine, not linear"),
        (("--warmup", 3), "had warmup 0, not 3"),
        (("--clip", 2), "had clip None, not 2.0"),
        (("--ema", 0.5), "had ema None, not 0.5"),
        (("--precision", "bf16"), "had precision float32, not bf16"),
        (("--steps", 5), "learning rate falls to zero at step 4, and 5 steps were asked for"),
    ],
)
def test_resume_refuses_another_setting_of_the_loop(changed, words, captions, tmp_path):
    common = ("--objective", "lincir", "--captions", captions, "--out", tmp_path / "model")
    assert train(*common, "--schedule", "cosine", "--steps", 4).exit_code == 0
    result = train(*common, *("--schedule", "cosine", "--steps", 4), *changed, "--resume")
    assert result.exit_code == 1
    assert words in result.output


@pytest.mark.parametrize("objective", ["lincir", "edits"])
def test_half_precision_learns_in_float32_weights(objective, captions, tmp_path):
    out = tmp_path / "model"
    options = ("--objective", objective, "--from-scratch", "--precision", "bf16", "--steps", 40)
    result = train("--captions", captions, *options, "--out", out)
    assert result.exit_code == 0, result.output
    record = read_record(out)["composers"]["lincir"]["training"]
    assert record["best_validation_loss"] < record["first_validation_loss"]
    state = torch.load(out / "training.pt", weights_only=True)
    assert all(tensor.dtype == torch.float32 for tensor in state["best"].values())


def test_states_are_saved_by_time_and_not_by_step(tmp_path, monkeypatch):
    clock = iter(range(0, 10**9, 60))  # a minute a step
    monkeypatch.setattr("cir_vectorizer_trainer.progress.time.monotonic", clock.__next__)
    trainer, saved = phi_trainer(LoopSettings()), []
    monkeypatch.setattr(trainer, "save", lambda folder, complete: saved.append((trainer.step, complete)))
    assert run(trainer, 12, tmp_path, save_every_s=200)
    assert saved[0] == (1, False), "the first save comes at once"
    assert saved[-1] == (12, True)
    assert 2 <= len(saved) - 2 <= 4


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["lincir", "edits"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_two_processes_equal_one_at_the_same_batch(objective, precision, tmp_path):
    out = tmp_path / "found.pt"
    command = (*TORCHRUN, "tests.training.two_processes", objective, precision, str(out))
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    together = torch.load(out, weights_only=True)
    alone = two_processes.found(objective, precision)
    tolerance = 1e-6 if precision == "float64" else 1e-5
    assert_close(alone["gradients"], together["gradients"], tolerance)
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert together["size"] == 2


@pytest.mark.parametrize("objective", ["lincir", "edits"])
def test_many_captions_are_trained_on_block_by_block_as_few_are(objective, captions, tmp_path, monkeypatch):
    """With small blocks and workers: one pass has the numbers of captions that are all in memory; a resumed run, too."""
    common = ("--objective", objective, "--captions", captions, "--schedule", "linear", "--steps", 6)
    assert train(*common, "--out", tmp_path / "few").exit_code == 0
    for module in ("captions.reading", "phi.examples"):
        monkeypatch.setattr(f"cir_vectorizer_trainer.{module}.MANY", 10)
    for module in ("phi.examples", "phi.trainer", "phi.training"):
        monkeypatch.setattr(f"cir_vectorizer_trainer.{module}.BLOCK", 8)
    monkeypatch.setattr("cir_vectorizer_trainer.phi.examples.KEPT_BLOCKS", 3)
    monkeypatch.setattr("cir_vectorizer_trainer.phi.examples.MOST_WORKERS", 2)
    whole = train(*common, "--out", tmp_path / "many")
    assert whole.exit_code == 0, whole.output
    with monkeypatch.context() as patched:
        patched.setattr("cir_vectorizer_trainer.phi.training.Training._train_step", _dies_at(4))
        stopped = CliRunner().invoke(
            main, ["train", *map(str, (*common, "--out", tmp_path / "parts", "--save-every", 0)), *OPTIONS]
        )
        assert isinstance(stopped.exception, Killed)
    resumed = train(*common, "--out", tmp_path / "parts", "--resume")
    assert resumed.exit_code == 0, resumed.output
    names = {"lincir": "phi", "edits": "learning"}
    states = [torch.load(tmp_path / name / "training.pt", weights_only=True) for name in ("few", "many", "parts")]
    few, many, parts = ([entry["loss"] for entry in state["history"]] for state in states)
    assert many == pytest.approx(few, rel=1e-5)
    assert many == parts
    many_weights, parts_weights = (state[names[objective]] for state in states[1:])
    assert all(torch.equal(tensor, parts_weights[name]) for name, tensor in many_weights.items())


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_pass_over_many_examples_goes_block_by_block(number):
    order = order_of_pass(MANY + 1, number, "3")
    assert torch.equal(order.sort().values, torch.arange(MANY + 1))
    blocks = (order // BLOCK).unique_consecutive()
    assert len(blocks) == len(blocks.unique())
    assert torch.equal(order, torch.arange(MANY + 1)) is (number == 0)


def test_the_defaults_are_the_published_recipes():
    assert LoopSettings() == replace(LoopSettings(), schedule="constant", warmup=0, clip=None, ema=None, accumulate=1)
