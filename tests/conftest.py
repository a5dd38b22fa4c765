"""Shared fixtures. Nothing here touches the network."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # a pytest-xdist worker: several processes share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.support.browser", "tests.support.databases", "tests.support.indexing", "tests.support.servers"]
SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files with slow tests first, so that no process is left with a long one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the reports of tests out of the user's folder for state."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photos, captions and recorded numbers; skips the test if it does not exist."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared folder with real photos and captions beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def tiny():
    """The packaged model, loaded once."""
    from cir_vectorizer.models import load

    return load("tiny", "cpu")


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small CLIPModel of random weights, as transformers saves it."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 16,
        },
        projection_dim=24,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("clip")
    CLIPModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def st_clip_folder(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of `clip_folder`, with CLIP's tokenizer, as sentence-transformers saves it."""
    import shutil

    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer
    from transformers import CLIPImageProcessor, CLIPProcessor, CLIPTokenizer

    from cir_vectorizer.backbones.tokenizer import ClipTokenizer

    tokens = ClipTokenizer()._bpe
    vocabulary = {
        name.replace("<start_of_text>", "<|startoftext|>").replace("<end_of_text>", "<|endoftext|>"): i
        for name, i in tokens.encoder.items()
    }
    merges = sorted(tokens.bpe_ranks, key=tokens.bpe_ranks.__getitem__)
    source = tmp_path_factory.mktemp("st") / "clip"
    shutil.copytree(clip_folder, source)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPProcessor(CLIPImageProcessor(**sizes), CLIPTokenizer(vocab=vocabulary, merges=merges)).save_pretrained(source)
    SentenceTransformer(modules=[Transformer(str(source))]).save(str(source.parent / "saved"))
    return source.parent / "saved"
