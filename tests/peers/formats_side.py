"""What others make of SAE files, run by SAELens' interpreter: it knows nothing of the workbench.

``python formats_side.py random FOLDER`` saves a random SAE of each SAELens architecture;
``python formats_side.py read JOB.json OUT.npz`` opens files with SAELens' loaders, and with the
libraries that write the formats where they are installed.
"""

import json
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_lens import SAE  # pyright: ignore[reportMissingImports]
from sae_lens.loading import pretrained_sae_loaders as loaders  # pyright: ignore[reportMissingImports]
from sae_lens.registry import SAE_CLASS_REGISTRY  # pyright: ignore[reportMissingImports]
from safetensors import safe_open
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""Features and output."""
D_IN, D_SAE, D_OUT, K = 12, 40, 9, 5
NORMALIZE = ("none", "layer_norm", "constant_norm_rescale")
REFUSED = {"abstopk", "temporal", "matching_pursuit"}


def heads(sae: Any, x: Tensor) -> Tensor:
    """`x`, with its heads apart where SAELens wants them so."""
    return x.view(*x.shape[:-1], 2, -1) if sae.cfg.reshape_activations == "hook_z" else x


def both(sae: Any, x: Tensor) -> Pair:
    """Features and output of a SAELens SAE."""
    f = sae.encode(heads(sae, x))
    return f, sae(heads(sae, x)).reshape(len(x), -1)


def random_saes(folder: Path) -> None:
    """One saved SAE for each architecture, bias and normalisation, with what it gives."""
    torch.manual_seed(0)
    for name, (cls, config_cls) in SAE_CLASS_REGISTRY.items():
        if name in REFUSED:
            continue
        transcoder = name.endswith("transcoder")
        for normalize in NORMALIZE[:1] if transcoder else NORMALIZE:
            for rescale in (False, True) if name == "topk" else (False,):
                fields: dict[str, Any] = {"d_out": D_OUT} if transcoder else {}
                fields |= (
                    {"k": K, "rescale_acts_by_decoder_norm": rescale} if name == "topk" else {}
                )
                config = config_cls(
                    d_in=D_IN, d_sae=D_SAE, apply_b_dec_to_input=not transcoder,
                    normalize_activations=normalize, **fields,
                )  # fmt: skip
                config.metadata.hook_name = "blocks.3.hook_resid_post"
                config.metadata.model_name = "gpt2"
                sae = cls(config)
                for parameter in sae.parameters():
                    parameter.data.normal_()
                sae.save_model(folder / f"{name} {normalize}{' rescaled' * rescale}")


def local(folder: Path) -> None:
    """Let SAELens' hub loaders read files below `folder` instead."""

    def found(repo_id: str, filename: str, subfolder: str | None = None, **_: Any) -> str:
        path = folder / repo_id / (subfolder or "") / filename
        if not path.exists():
            raise loaders.EntryNotFoundError(str(path))
        return str(path)

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        with safe_open(folder / repo_id / filename, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118

    loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes = found, shapes


def by_hub_loader(name: str) -> Callable[[Path, Path, Tensor], Pair]:
    """SAELens' reader of a repository, on a local folder."""

    def read(folder: Path, weights: Path, x: Tensor) -> Pair:
        del weights

        def convert(path: Path, device: str, cfg_overrides: Any) -> tuple[dict, dict]:
            loader = loaders.NAMED_PRETRAINED_SAE_LOADERS[name]
            path = Path(path)
            config, state, _ = loader(str(path.parent), path.name, device, False, cfg_overrides)
            return config, state

        local(Path("/"))
        return both(SAE.load_from_disk(folder, dtype="float32", converter=convert), x)

    return read


def saelens(folder: Path, weights: Path, x: Tensor) -> Pair:
    """SAELens' own files. It applies an average factor only when it is told to fold it."""
    del weights
    sae = SAE.load_from_disk(folder)
    scaler = folder / "activation_scaler.json"
    if scaler.exists():
        sae.fold_activation_norm_scaling_factor(json.loads(scaler.read_text())["scaling_factor"])
    return both(sae, x)


def scope_2(folder: Path, weights: Path, x: Tensor) -> Pair:
    """The folder's name is two deep, and says the site."""
    del weights

    def convert(path: Path, device: str, cfg_overrides: Any) -> tuple[dict, dict]:
        path, name = Path(path), "/".join(Path(path).parts[-2:])
        loader = loaders.gemma_3_sae_huggingface_loader
        config, state, _ = loader(str(path.parents[1]), name, device, False, cfg_overrides)
        return config, state

    local(Path("/"))
    return both(SAE.load_from_disk(folder, dtype="float32", converter=convert), x)


def llama(folder: Path, weights: Path, x: Tensor) -> Pair:
    """Folded as ``SAE.from_pretrained`` does; activations in units of the normalised input."""
    del weights
    config = json.loads((folder / "hyperparams.json").read_text())
    scale = config["d_model"] ** 0.5 / config["dataset_average_activation_norm"]["in"]

    def convert(path: Path, device: str, cfg_overrides: Any) -> tuple[dict, dict]:
        path = Path(path)
        loader = loaders.llama_scope_sae_huggingface_loader
        config, state, _ = loader(str(path.parent), path.name, device, False, cfg_overrides)
        return config, state

    local(Path("/"))
    sae = SAE.load_from_disk(folder, dtype="float32", converter=convert)
    sae.fold_activation_norm_scaling_factor(scale)
    f, y = both(sae, x)
    return f / scale, y


def sparsify_by_saelens(folder: Path, weights: Path, x: Tensor) -> Pair:
    """SAELens' loader of sparsify's files."""
    del weights
    return both(
        SAE.load_from_disk(folder, dtype="float32", converter=loaders.sparsify_disk_loader), x
    )


def mwhanna(folder: Path, weights: Path, x: Tensor) -> Pair:
    """SAELens' loader of ReLU transcoders, whose sizes are in the run's own config."""
    values = {"d_model": x.shape[-1], "d_feature": D_SAE, "batch_size": 1}
    lines = [f"{name}:\n  value: {value}\n" for name, value in values.items()]
    (folder / "wandb-config.yaml").write_text("".join(lines))

    def convert(path: Path, device: str, cfg_overrides: Any) -> tuple[dict, dict]:
        loader = loaders.mwhanna_transcoder_huggingface_loader
        config, state, _ = loader(str(path), weights.name, device, False, cfg_overrides)
        return config, state

    local(Path("/"))
    return both(SAE.load_from_disk(folder, dtype="float32", converter=convert), x)


def sparsify(folder: Path, weights: Path, x: Tensor) -> Pair:
    """EleutherAI's class."""
    from sparsify.sparse_coder import SparseCoder  # pyright: ignore[reportMissingImports]

    del weights
    coder = SparseCoder.load_from_disk(folder)
    values, indices, _ = coder.encode(x)
    f = torch.zeros(len(x), coder.num_latents).scatter(-1, indices, values)
    return f, coder(x).sae_out


def circuit_tracer(folder: Path, weights: Path, x: Tensor) -> Pair:
    """circuit-tracer's class."""
    from circuit_tracer.transcoder import (  # pyright: ignore[reportMissingImports]
        single_layer_transcoder as tracer,
    )

    del folder
    load = tracer.load_relu_transcoder
    load = tracer.load_gemma_scope_2_transcoder if weights.name.startswith("params") else load
    load = tracer.load_gemma_scope_transcoder if weights.suffix == ".npz" else load
    coder = load(str(weights), 0, device=torch.device("cpu"), dtype=torch.float32)
    return coder.encode(x), coder(x)


def dictionary_learning(folder: Path, weights: Path, x: Tensor) -> Pair:
    """dictionary_learning's classes, as ``load_dictionary`` chooses and opens them."""
    # The package imports these when it is imported; the classes use none of them.
    for name in ("nnsight", "datasets", "zstandard", "wandb", "umap", "circuitsvis"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["nnsight"].__dict__.setdefault("LanguageModel", object)
    from dictionary_learning import dictionary  # pyright: ignore[reportMissingImports]
    from dictionary_learning.trainers import (  # pyright: ignore[reportMissingImports]
        batch_top_k,
        matryoshka_batch_top_k,
        top_k,
    )

    name = json.loads((folder / "config.json").read_text())["trainer"]["dict_class"]
    homes = (dictionary, top_k, batch_top_k, matryoshka_batch_top_k)
    cls = next(getattr(home, name) for home in homes if hasattr(home, name))
    # Unit rows are another scale of the activations, and the same output.
    plain = {"normalize_decoder": False} if name == "AutoEncoder" else {}
    coder = cls.from_pretrained(str(weights), **plain)
    f = coder.encode(x)
    return f, coder.decode(f)


READERS: dict[str, list[Callable[[Path, Path, Tensor], Pair]]] = {
    "gemma_scope": [circuit_tracer],
    "gemma_scope_2": [scope_2, circuit_tracer],
    "sae_lens": [saelens],
    "dictionary_learning": [by_hub_loader("dictionary_learning_1"), dictionary_learning],
    "sparsify": [sparsify_by_saelens, sparsify],
    "llama_scope": [llama],
    "circuit_tracer": [mwhanna, circuit_tracer],
    "openai": [],
}


@torch.no_grad()
def read(job: list[dict[str, str]]) -> dict[str, Any]:
    """Features and output of each file by each reader, or why there are none."""
    found: dict[str, Any] = {}
    for item in job:
        x = torch.from_numpy(np.load(item["x"]))
        for reader in READERS[item["format"]]:
            label = reader.__name__ if reader.__name__ != "read" else "saelens"
            key = f"{item['name']}|{label}"
            try:
                f, y = reader(Path(item["folder"]), Path(item["weights"]), x.clone())
            except Exception as error:  # whatever it is, it is this reader's answer
                found[f"{key}|error"] = np.array(f"{type(error).__name__}: {error}"[:200])
                continue
            found[f"{key}|f"], found[f"{key}|y"] = f.numpy(), y.numpy()
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    command, *paths = sys.argv[1:]
    if command == "random":
        random_saes(Path(paths[0]))
    else:
        np.savez(paths[1], **read(json.loads(Path(paths[0]).read_text())))
