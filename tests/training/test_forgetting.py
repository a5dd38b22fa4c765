"""The guard against forgetting: a blend of the weights before and after a training, judged on two kinds of captions."""

import pytest
import torch

from cir_vectorizer.models import load, read_record
from cir_vectorizer_trainer.phi import forgetting
from cir_vectorizer_trainer.phi.forgetting import blended, choose, general_judge
from tests.training.test_train_edits import edits, trainer_of, weights_of

OLD, NEW = {"w": torch.zeros(2)}, {"w": torch.ones(2)}


def score_of(points: dict[float, float]):
    """Score weights by their share of the new ones."""
    return lambda weights: points[round(weights["w"][0].item(), 2)]


@pytest.mark.parametrize(
    ("general", "share", "forgets"),
    [
        ({0: 0.5, 0.25: 0.5, 0.5: 0.5, 0.75: 0.5, 1: 0.49}, 1.0, False),
        ({0: 0.5, 0.25: 0.5, 0.5: 0.5, 0.75: 0.49, 1: 0.4}, 0.75, False),
        ({0: 0.5, 0.25: 0.5, 0.5: 0.3, 0.75: 0.2, 1: 0.1}, 0.25, False),
        ({0: 0.5, 0.25: 0.4, 0.5: 0.3, 0.75: 0.2, 1: 0.1}, 0.25, True),
    ],
)
def test_the_best_blend_that_does_not_forget_is_kept(general, share, forgets):
    own = score_of({0: 0.1, 0.25: 0.2, 0.5: 0.3, 0.75: 0.4, 1: 0.5})
    blend = choose(OLD, NEW, own, score_of(general))
    assert (blend.share, blend.forgets) == (share, forgets)
    assert (blend.own_before, blend.general_before) == (0.1, 0.5)
    assert ("no blend stays within" in blend.sentence()) == forgets


def test_a_blend_is_the_weighted_mean():
    assert blended(OLD, NEW, 0.25)["w"].tolist() == [0.25, 0.25]
    assert blended(OLD, NEW, 1.0)["w"].tolist() == [1.0, 1.0]


def test_a_tower_that_cannot_tell_general_captions_apart_is_not_checked(tiny, tmp_path):
    """`tiny` knows only the words of drawn products."""
    assert general_judge(tiny.backbone) is None
    trainer = trainer_of(tiny)
    list(trainer.run(2))
    trainer.save(tmp_path / "model", complete=True)
    assert "forgetting is not checked" in trainer.remarks[0]
    assert "blend" not in read_record(tmp_path / "model")["composers"]["lincir"]["training"]


def test_a_blend_is_written_and_the_saved_state_keeps_the_new_weights(tiny, tmp_path, monkeypatch):
    """Here general captions score so that the half-and-half blend is the best that does not forget."""
    monkeypatch.setattr(forgetting, "_MOST_ALIKE", 1.0)
    judge = general_judge(tiny.backbone)
    scores = iter((0.5, 0.1, 0.2, 0.5, 0.5))
    monkeypatch.setattr(judge, "figures", lambda reader, phi: {"score": next(scores)})
    monkeypatch.setattr("cir_vectorizer_trainer.phi.edits_trainer.general_judge", lambda backbone: judge)
    trainer = trainer_of(tiny, edits())
    old = {name: tensor.clone() for name, tensor in trainer.phi.state_dict().items()}
    own = iter((0.1, 0.5, 0.4, 0.3, 0.2))
    list(trainer.run(3))
    best = dict(trainer.best)
    monkeypatch.setattr(trainer.judge, "figures", lambda reader, phi: {"score": next(own)})
    trainer.save(tmp_path / "model", complete=True)
    written = weights_of(tmp_path / "model")
    for name, tensor in old.items():
        torch.testing.assert_close(written[name], (tensor + best[f"phi.{name}"]) / 2)
    assert all(torch.equal(best[name], tensor) for name, tensor in trainer.best.items())
    record = read_record(tmp_path / "model")["composers"]["lincir"]["training"]["blend"]
    assert record == {"new_share": 0.5, "score": [0.1, 0.3], "general_score": [0.5, 0.5]}
    assert "50% of the new weights are kept" in trainer.remarks[0]
    assert load(str(tmp_path / "model"), "cpu").dim == tiny.dim


def test_general_captions_are_many_and_give_probes_with_hard_negatives(tiny, monkeypatch):
    lines = forgetting.CAPTIONS.read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) == 1500
    monkeypatch.setattr(forgetting, "_MOST_ALIKE", 1.0)
    judge = general_judge(tiny.backbone)
    assert len(judge.captions) > 2000


def test_a_training_from_scratch_has_nothing_to_forget(tiny, tmp_path):
    trainer = trainer_of(tiny, from_scratch=True)
    list(trainer.run(2))
    trainer.save(tmp_path / "model", complete=True)
    assert trainer.remarks == []
