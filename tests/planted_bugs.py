"""Plant bugs one at a time, and see that the tests catch each.

``python -m tests.planted_bugs`` copies the checkout to a temporary folder, changes one line of the
copy, runs the tests that should see it until the first failure, and prints which test it was. It
takes some minutes and is not part of the tests; run it after a change of the engine or of them.
Words after the command choose bugs whose names hold one of them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUITES = ("tests/engine", "tests/sae", "tests/test_features_and_runs.py")


@dataclass(frozen=True)
class Bug:
    """One wrong line."""

    name: str
    file: str
    right: str
    """Text that stands in the file exactly once."""
    wrong: str
    tests: tuple[str, ...] = SUITES
    """What should catch it."""


HUB = ("tests/sae/test_hub.py", "tests/sae/test_remote.py", "tests/sae/test_published.py")
FORMATS = ("tests/sae/test_formats.py",)
CHECKS = ("tests/test_evaluation.py",)
BUGS = (
    Bug(
        "wrong site: mlp before its norm",
        "architectures.py",
        'mlp="post_feedforward_layernorm"',
        'mlp="mlp"',
    ),
    Bug(
        "wrong site: transcoder input not normalised",
        "sites.py",
        "return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)",
        "return x",
    ),
    Bug(
        "embedding read after its scaling",
        "sites.py",
        'float(getattr(module, "scalar_embed_scale", 1.0))',
        "1.0",
    ),
    Bug(
        "order of sites: mlp before att",
        "sites.py",
        'Literal["embed", "att", "transcoder", "mlp", "res"]',
        'Literal["embed", "transcoder", "mlp", "att", "res"]',
    ),
    Bug(
        "batch row 0 for all",
        "sites.py",
        "output[0] if isinstance(output, tuple) else output",
        "output[0] if isinstance(output, tuple) else output[:1].expand_as(output)",
    ),
    Bug(
        "prefill only",
        "engine/surgeon.py",
        "if mask is not None:\n                addition",
        "if mask is not None and self._like is None:\n                addition",
    ),
    Bug(
        "prefill only, quietly",
        "engine/surgeon.py",
        "s: here if h else None",
        "s: here & False",
    ),
    Bug(
        "first step only",
        "scopes.py",
        "return self.steps is None or step in self.steps",
        "return step == 1 and (self.steps is None or step in self.steps)",
    ),
    Bug(
        "steps counted one too late",
        "scopes.py",
        "step = (positions - prompt_length + 1)",
        "step = (positions - prompt_length)",
    ),
    Bug(
        "error term lost",
        "engine/surgeon.py",
        "changed = x.float()\n",
        "group = stop.group\n"
        "        here = group is not None and group.site.writes_at == site\n"
        "        changed = group.sae.reconstruct(x) if here else x\n",
    ),
    Bug(
        "edit computed and dropped",
        "engine/surgeon.py",
        "changed = changed + one.difference",
        "changed = changed + 0 * one.difference",
    ),
    Bug(
        "of several edits the last only",
        "engine/surgeon.py",
        "coefficients @ group.rows",
        "coefficients[..., -1:] * group.rows[-1]",
    ),
    Bug(
        "sign of ablation",
        "engine/edits.py",
        "return amount, -1.0\n\n\n@dataclass(frozen=True)\nclass When",
        "return amount, 1.0\n\n\n@dataclass(frozen=True)\nclass When",
    ),
    Bug(
        "clamp adds without taking away",
        "engine/edits.py",
        "return amount, -1.0\n\n\n@dataclass(frozen=True)\nclass Scale",
        "return amount, 0.0\n\n\n@dataclass(frozen=True)\nclass Scale",
    ),
    Bug("scale by s instead of s - 1", "engine/edits.py", "0.0, amount - 1.0", "0.0, amount"),
    Bug("<bos> edited", "scopes.py", "chosen = positions > 0", "chosen = positions >= 0"),
    Bug("<bos> scored", "features.py", "return self.positions > 0", "return self.positions >= 0"),
    Bug(">= for >: JumpReLU", "sae/base.py", "return pre > (0 if", "return pre >= (0 if"),
    Bug(
        ">= for >: condition",
        "engine/surgeon.py",
        "self._watched[site][..., places] > above",
        "self._watched[site][..., places] >= above",
    ),
    Bug(
        "threshold forgotten for single features",
        "sae/base.py",
        "else self.threshold[rows]",
        "else self.threshold[rows] * 0",
    ),
    Bug(
        "typical maximum forgotten",
        "engine/binding.py",
        "value * _needed(source).typical_maximum(edit.site, edit.index)",
        "value",
    ),
    Bug(
        "missing soft cap",
        "engine/writing.py",
        "logits = out.logits[:, -1].float()",
        "cap = self.model.config.final_logit_softcapping\n"
        "        logits = torch.atanh(out.logits[:, -1].float() / cap * 0.999999) * cap",
    ),
    # Either of the two alone changes nothing: rotary positions are relative, and transformers
    # takes positions that start again for the start of another text.
    Bug(
        "padding attended to",
        "engine/tracing.py",
        "attention_mask=batch.attention_mask,\n"
        "                position_ids=batch.positions.clamp(min=0),",
        "",
    ),
    Bug(
        "one random stream for the whole batch",
        "engine/writing.py",
        "[torch.Generator().manual_seed(seed) for _ in prompts]",
        "[torch.Generator().manual_seed(seed)] * len(prompts)",
    ),
    Bug("end of sequence overlooked", "engine/writing.py", "if token in self.end:", "if False:"),
    Bug("mean forgotten", "engine/binding.py", 'edit.to == "mean"', 'edit.to == "zero"'),
    Bug(
        "mean over the active tokens only",
        "analysis/evaluation.py",
        "(total / len(x))",
        "(total / max(1, int((saes[site].encode(x)[:, indices] > 0).sum())))",
    ),
    Bug(
        "an edit in every row",
        "engine/program.py",
        "members[:, number, None]",
        "members[:, :1] | True",
    ),
    Bug(
        "feature edits in every row",
        "engine/surgeon.py",
        "mask & group.members",
        "mask | (group.members & False)",
    ),
    Bug(
        "a splice that loses its bias",
        "engine/program.py",
        "return self._few.reconstruct(x).float()",
        "return (self._few.reconstruct(x) - self.sae.b_dec).float()",
    ),
    Bug(
        "a splice that keeps what it should drop",
        "engine/program.py",
        "f.masked_fill(self._left_out, 0)",
        "f.masked_fill(~self._left_out, 0)",
    ),
    Bug(
        "a skip connection lost with the features",
        "engine/program.py",
        "skip = self.sae.W_skip",
        "skip = None",
    ),
    Bug(
        "a splice on top of the activation",
        "engine/surgeon.py",
        "output - x[mask].float() if splice.replaces else output",
        "output",
    ),
    Bug(
        "a freeze to the first prompt's twin",
        "engine/surgeon.py",
        "twins = [twin_of[row] for row in rows]",
        "twins = [len(batch)] * len(rows)",
    ),
    Bug(
        "a twin that writes its own text",
        "engine/writing.py",
        "new = new if not batch.twins else new[list(batch.layout)]",
        "new = torch.cat([new, new[: len(batch.twins)] * 0 + 7])",
    ),
    Bug(
        "edited twins",
        "engine/tracing.py",
        "*(() for _ in twins)",
        "*(table.rows[t] for t in twins)",
    ),
    Bug(
        "edits at a frozen site act on what arrived",
        "engine/surgeon.py",
        "held = x.index_copy(0, hold.rows, x[hold.twins])",
        "held = x.index_copy(0, hold.rows, (x + x[hold.twins])[hold.rows] / 2)",
    ),
    Bug(
        "old masks for new steps",
        "engine/surgeon.py",
        "if self._like != (alive, holds):",
        "if self._like is None:",
    ),
    Bug(
        "a receipt of another row",
        "engine/receipts.py",
        "(norms[row, :, edits.index(edit)], sizes[row], where[row])",
        "(norms[0, :, edits.index(edit)], sizes[row], where[row])",
    ),
    Bug(
        "the receipt of a slider in its first row's norm",
        "engine/receipts.py",
        "self._entries.setdefault((edits, id(row_norms)), [])",
        "self._entries.setdefault((edits, 0), [])",
    ),
    Bug(
        "Gemma 3's transcoder without the gain",
        "architectures.py",
        'replace(GEMMA2, model_type="gemma3_text", transcoder_reads="output")',
        'replace(GEMMA2, model_type="gemma3_text")',
        ("tests/engine/test_architectures.py",),
    ),
    Bug(
        "canonical: of two as near the smaller",
        "sae/catalog_data.py",
        "key=lambda l0: (abs(l0 - PREFERRED_L0), -l0)",
        "key=lambda l0: (abs(l0 - PREFERRED_L0), l0)",
        ("tests/sae/test_catalog.py",),
    ),
    Bug(
        "the SAE used last is closed first",
        "sae/shelf.py",
        "popitem(last=False)",
        "popitem(last=True)",
        ("tests/sae/test_shelf.py",),
    ),
    Bug(
        "another feature's row from the hub",
        "sae/remote.py",
        "extent.offset + index * length",
        "extent.offset + (index + 1) * length",
        HUB,
    ),
    Bug(
        "a download is not looked into",
        "sae/hub/download.py",
        "if check is not None:",
        "if False:",
        HUB,
    ),
    Bug(
        "a hash is not compared", "sae/hub/download.py", "if not _same_hash(", "if False and (", HUB
    ),
    Bug(
        "the token goes to the storage",
        "sae/hub/source.py",
        'self._headers.pop("authorization", None)',
        "pass",
        HUB,
    ),
    Bug(
        "a gate in the wrong units",
        "sae/formats/files.py",
        "b_gate, size) * scale)",
        "b_gate, size))",
        FORMATS,
    ),
    Bug(
        "an affine connection not transposed",
        "sae/formats/gemma_scope_2.py",
        "matrix(path, tensors, SKIP).T if",
        "matrix(path, tensors, SKIP) if",
        FORMATS,
    ),
    Bug("<bos> in the check", "analysis/evaluation.py", "run[site][0, 1:]", "run[site][0]", CHECKS),
    Bug(
        "a wrong site is not looked for",
        "analysis/evaluation.py",
        "if found.fvu > FVU_DOUBT or notes:",
        "if False:",
        CHECKS,
    ),
    Bug(
        "known features of the position before",
        "analysis/evaluation.py",
        "known.dense(start + 1, start + 1 + len(x))",
        "known.dense(start, start + len(x))",
        CHECKS,
    ),
)
ALL = tuple(dict.fromkeys((*SUITES, *CHECKS)))
"""What has to pass without a bug."""


def run(bug: Bug | None, copy: Path) -> str:
    """The first test that fails with `bug` in the copy; empty if all pass."""
    path = copy / "workbench" / bug.file if bug else copy / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    if bug:
        if text.count(bug.right) != 1:
            raise ValueError(f"{bug.name}: {bug.right!r} must stand in {bug.file} exactly once")
        path.write_text(text.replace(bug.right, bug.wrong), encoding="utf-8")
    options = ("-x", "-q", "--tb=no", "--no-header", "-p", "no:cacheprovider", "-rfE")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *(bug.tests if bug else ALL), *options],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    path.write_text(text, encoding="utf-8")
    if done.returncode == 0:
        return ""
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if failed is None:
        raise RuntimeError(f"the tests did not run:\n{done.stdout}{done.stderr}")
    return failed[1]


def main(names: list[str]) -> int:
    """Print a table; the exit status is the number of bugs that no test caught."""
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "workbench"
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".*", "node_modules", "__pycache__")
        )
        if before := run(None, copy):
            raise RuntimeError(f"without any bug {before} fails")
        for bug in BUGS:
            if names and not any(name in bug.name for name in names):
                continue
            caught = run(bug, copy)
            missed += not caught
            sys.stdout.write(f"| {bug.name} | `{bug.file}` | {caught or '**not caught**'} |\n")
            sys.stdout.flush()
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
