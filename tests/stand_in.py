"""The tutorials with ``MODEL = "gemma-2-2b"``, on a stand-in: ``python -m tests.stand_in [03 08]``.

Whoever changes the one word at the top of a tutorial expects the rest to run. The real weights are
gated and take 6 GB, so this opens a model with 26 random layers and narrow ones, and random SAEs at
every site where Gemma Scope has some, with 16,384 features each, and nothing else that pocket
brings: no labels, no index, no measured strengths. What a tutorial then shows means nothing; that
every cell runs means that none leans on pocket alone.
"""

from __future__ import annotations

import argparse
import time
import zlib
from pathlib import Path
from typing import Any

import nbformat
import torch
from nbclient import NotebookClient
from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from workbench.lab import opening
from workbench.lab.facade import Lab
from workbench.models import Model, wrap
from workbench.pocket.manifest import weights
from workbench.sae import SAE, SAEConfig
from workbench.sae.gemma_scope import Entry
from workbench.sae.published import PublishedSuite
from workbench.sites import Site

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
NAME = "gemma-2-2b"
POCKET, LARGE = 'MODEL = "pocket"', f'MODEL = "{NAME}"'
D_MODEL, HEADS, HEAD_DIM = 48, 4, 16
ACTIVE = 60
"""Features that fire on a token."""
SHRINK = 1 / 12
"""Of the encoder, so that so many directions near an activation add up to about its length."""


def module(name: str) -> Gemma2ForCausalLM:
    """A narrow Gemma 2 with as many layers as the 2B model; each name has weights of its own."""
    torch.manual_seed(len(name))
    config = Gemma2Config(
        vocab_size=3072,
        hidden_size=D_MODEL,
        intermediate_size=96,
        num_hidden_layers=26,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        head_dim=HEAD_DIM,
        max_position_embeddings=1024,
        initializer_range=0.3,
        attn_implementation="eager",  # pyright: ignore[reportCallIssue]
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    return Gemma2ForCausalLM(config)


class RandomScope(PublishedSuite):
    """The catalogue's SAEs of the 2B model, each random and as if on disk."""

    def at_hand(self, site: Site) -> bool:
        """All are."""
        return site in self.sites

    def _opened(self, entry: Entry) -> SAE:
        return self.shelf.get(entry.path, lambda: self._random(entry))

    def _random(self, entry: Entry) -> SAE:
        random = torch.Generator().manual_seed(zlib.crc32(str(entry.path).encode()))
        d_in = HEADS * HEAD_DIM if entry.kind == "att" else D_MODEL
        W_dec = torch.nn.functional.normalize(torch.randn(entry.width, d_in, generator=random))
        return SAE(
            W_enc=(SHRINK * W_dec).T.contiguous(),
            b_enc=torch.zeros(entry.width),
            W_dec=W_dec,
            b_dec=torch.zeros(d_in),
            threshold=None,
            activation="topk",
            k=ACTIVE,
            config=SAEConfig(
                self.model,
                entry.layer,
                entry.kind,
                entry.width,
                entry.l0,
                str(entry.path),
                d_in,
                d_in,
                entry.width,
            ),
        )


def install() -> None:
    """Let ``wb.open("gemma-2-2b")`` and ``"gemma-2-2b-it"`` open the stand-in from now on."""
    import workbench

    real = opening.open

    def opened(name: Any = NAME, *, suite: Any = None, **options: Any) -> Lab:
        if name not in (NAME, f"{NAME}-it"):
            return real(name, suite=suite, **options)
        tokenizer = AutoTokenizer.from_pretrained(weights() / "base")
        model: Model = wrap(module(name), tokenizer, name=name)
        return Lab(model, suite or RandomScope(NAME))

    workbench.open = opened  # pyright: ignore[reportAttributeAccessIssue]


def run(path: Path, timeout: float) -> None:
    """Run a tutorial with the model's name changed.

    Raises:
        ValueError: If it does not name its model in the one place.
        CellExecutionError: If a cell fails.
    """
    notebook: Any = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    named = [cell for cell in cells if POCKET in cell.source]
    if len(named) != 1:
        raise ValueError(f"{path.name}: {POCKET} stands in {len(named)} cells, wanted: 1")
    named[0].source = named[0].source.replace(POCKET, LARGE)
    start = nbformat.v4.new_code_cell("from tests.stand_in import install\n\ninstall()")
    notebook.cells.insert(0, start)
    NotebookClient(
        notebook, timeout=timeout, resources={"metadata": {"path": str(NOTEBOOKS.parent)}}
    ).execute()


def main() -> int:
    """Run them all, or those that are named, and say what each took."""
    parser = argparse.ArgumentParser(prog="python -m tests.stand_in", description=__doc__)
    parser.add_argument("names", nargs="*", help="how the names of the tutorials begin")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds a cell (%(default)s)")
    options = parser.parse_args()
    failed = 0
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if options.names and not path.name.startswith(tuple(options.names)):
            continue
        began = time.monotonic()
        try:
            run(path, options.timeout)
            said = "runs"
        except Exception as error:  # each is reported, and the others are tried all the same
            failed += 1
            said = f"FAILS: {type(error).__name__}\n{error}"
        print(f"{path.name}  {time.monotonic() - began:.0f} s  {said}", flush=True)  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
