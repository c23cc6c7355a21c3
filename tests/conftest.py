"""A loud model: random weights large enough that a wrong site or a lost edit cannot hide."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

from workbench.models import Model, wrap
from workbench.sae import SAE, SAEConfig
from workbench.sites import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Run in processes of their own, two with packages that are no dependencies.
collect_ignore = ["peers/sae_lens_side.py", "peers/formats_side.py", "index/ray_side.py"]

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # Test files run side by side: torch's threads would only be in each other's way.
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))

CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
D_MODEL, HEADS, HEAD_DIM, LAYERS, WINDOW, D_SAE = 24, 4, 8, 3, 6, 40


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, after Gemma's four special tokens and the two of the chat."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def loud_module(seed: int = 0) -> Gemma2ForCausalLM:
    """A random Gemma 2 whose every part matters: with default weights, most bugs stay unseen."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    module = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=D_MODEL,
            intermediate_size=48,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=2,
            head_dim=HEAD_DIM,
            query_pre_attn_scalar=HEAD_DIM,
            max_position_embeddings=64,
            sliding_window=WINDOW,
            initializer_range=1.0,
            tie_word_embeddings=False,
            attn_implementation="eager",  # pyright: ignore[reportCallIssue]
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=2,
        )
    ).eval()
    with torch.no_grad():
        module.lm_head.weight.mul_(4)
        for name, parameter in module.named_parameters():
            if "norm" in name:
                parameter.normal_(0, 0.3)
    return module


@dataclass
class RandomSuite:
    """A `FeatureSource` of random SAEs, one for each site, all numbers different.

    Decoder rows are not of unit norm, as in some published formats.
    """

    saes: dict[Site, SAE]
    model: str = "loud"
    own: Any = None
    """Labels of the user's own, when a `Lab` holds the suite."""
    changes: tuple[Site, ...] = ()
    """None of its SAEs is ever replaced."""

    def check_feature(self, site: Site, index: int) -> None:
        self.sae_at(site).check_index(index)

    def sae_at(self, site: Site) -> SAE:
        return self.saes[site]

    def typical_maximum(self, site: Site, index: int) -> float:
        return 1.0 + site.layer + len(site.kind) / 2 + index / 10

    def mean_activation(self, site: Site, index: int) -> float:
        return 0.5 + site.layer / 4 + len(site.kind) / 8 + index / 20

    def mean_norm(self, site: Site) -> float:
        return 3.0 + site.layer + len(site.kind)


def random_sae(site: Site, d_in: int, seed: int, d_out: int | None = None) -> SAE:
    random = torch.Generator().manual_seed(seed)
    d_out = d_out or d_in
    return SAE(
        W_enc=torch.randn(d_in, D_SAE, generator=random),
        b_enc=torch.randn(D_SAE, generator=random),
        W_dec=torch.randn(D_SAE, d_out, generator=random),
        b_dec=torch.randn(d_out, generator=random),
        threshold=torch.rand(D_SAE, generator=random) + 0.5,
        activation="jumprelu",
        config=SAEConfig("loud", site.layer, site.kind, D_SAE, None, "", d_in, d_out, D_SAE),
    )


@pytest.fixture(scope="session")
def model() -> Model:
    return wrap(loud_module(), byte_tokenizer(), name="loud")


@pytest.fixture(scope="session")
def suite(model: Model) -> RandomSuite:
    sites = [Site(0, "embed")] + [
        Site(layer, kind) for layer in range(LAYERS) for kind in ("att", "transcoder", "mlp", "res")
    ]
    return RandomSuite(
        {s: random_sae(s, s.width(model.config), 100 + i) for i, s in enumerate(sites)}
    )


@pytest.fixture(scope="session", autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder of the tests' own: the labels of whoever runs them stay out of it."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(folder))
        yield folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests: a second Playwright in the same process is refused."""
    from playwright.sync_api import sync_playwright

    from tests import chromium

    path = os.environ.get("WORKBENCH_CHROMIUM") or chromium.find()
    if path is None:
        pytest.fail(chromium.HELP)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield started
        started.close()


@pytest.fixture
def fresh() -> Model:
    """A model of the test's own, which it may change."""
    return wrap(loud_module(), byte_tokenizer(), name="fresh")
