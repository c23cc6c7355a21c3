"""A lab on disk: a loud random model with an SAE at every site, calibrated, and a chat template."""

from __future__ import annotations

from pathlib import Path

import torch
from conftest import LAYERS, byte_tokenizer, loud_module, random_sae
from safetensors.torch import save_file

from workbench.sae.gemma_scope import write_params
from workbench.sites import Kind, Site

KINDS: tuple[Kind, ...] = ("res", "att", "mlp", "transcoder")
PROMPT = "Once upon a time"
TURNS = ({"role": "user", "content": "Hello"},)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def write_small_lab(folder: Path) -> tuple[Path, Path]:
    """Write a model and its suite below `folder`; gives both folders, for ``wb.open``."""
    module, tokenizer = loud_module(), byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    model, suite = folder / "model", folder / "suite"
    module.save_pretrained(model)
    tokenizer.save_pretrained(model)
    statistics: dict[str, torch.Tensor] = {}
    for layer in range(LAYERS):
        for number, kind in enumerate(KINDS):
            site = Site(layer, kind)
            sae = random_sae(
                site,
                site.width(module.config),
                seed=10 * layer + number,
                d_out=site.writes_at.width(module.config),
            )
            write_params(sae, suite / kind / f"layer_{layer}" / "width_40" / "average_l0_5")
            statistics[f"{kind}/{layer}/maximum"] = torch.linspace(1, 5, sae.config.d_sae)
            statistics[f"{kind}/{layer}/density"] = torch.full((sae.config.d_sae,), 0.1)
            statistics[f"{kind}/{layer}/norm"] = torch.tensor(3.0 + layer)
    save_file(statistics, suite / "calibration.safetensors")
    return model, suite
