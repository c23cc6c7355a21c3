"""Recipes: a steered text as a file, so that somebody else can make it again and see that it is so.

A recipe is JSON, and says which model, prompt, edits, sampling and seed made a text, and of each
SAE the name and a hash of the rows that were used. Another lab may open it: `Recipe.problems` lists
what does not fit there, before anything runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.engine.edits import Edit, freeze_rest
from workbench.engine.writing import check_sampling
from workbench.files import readable, write_whole
from workbench.recipes.fields import check_finite, checked_fields
from workbench.recipes.rows import Row, acting
from workbench.recipes.saes import Used, missing, needed_features, unlike, used
from workbench.recipes.standalone import standalone_script

if TYPE_CHECKING:
    from workbench.lab import Lab
    from workbench.tokens import Prompt

FORMAT = "workbench-recipe"
VERSION = 1
ROLES = ("user", "assistant")
FREEZES = ("", "att", "all")


class RecipeError(ValueError):
    """A file is no recipe that can be used.

    Attributes:
        problems: What is wrong with it, a sentence each.
    """

    def __init__(self, what: str, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__(f"{what}: " + "; ".join(problems))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the text is drawn; see `workbench.engine.tracing.generate`."""

    max_new_tokens: int = 60
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p"):
            check_finite(name, getattr(self, name))
        check_sampling(self.max_new_tokens, 0, self.temperature, self.top_p, self.seed)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that a steered text was made with."""

    model: str
    """Name of the model."""
    prompt: str = ""
    """What the text begins with, where it is no chat."""
    turns: tuple[Mapping[str, str], ...] = ()
    """Turns of a chat, instead of `prompt`."""
    rows: tuple[Row, ...] = ()
    settings: Settings = Settings()
    freeze: str = ""
    """``"att"`` or ``"all"``: what is held as in the unedited run; see `wb.freeze_rest`."""
    saes: tuple[Used, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "turns", tuple(check_turns(self.turns)))
        object.__setattr__(self, "rows", tuple(self.rows))
        object.__setattr__(self, "saes", tuple(self.saes))
        if self.freeze not in FREEZES:
            raise ValueError(f"freeze must be one of {FREEZES}, got {self.freeze!r}")

    @classmethod
    def of(
        cls,
        lab: Lab,
        prompt: Prompt,
        rows: Iterable[Row],
        settings: Settings = Settings(),
        *,
        freeze: str = "",
    ) -> Recipe:
        """The recipe of a text in `lab`.

        Raises:
            ValueError: If an SAE or a feature does not exist.
        """
        rows = tuple(rows)
        text = {"prompt": prompt} if isinstance(prompt, str) else {"turns": prompt}
        needed = needed_features(rows)
        maxima = {r.site for r in rows if r.unit == "max" and r.mode in ("steer", "clamp")}
        return cls(
            model=lab.engine.name,
            rows=rows,
            settings=settings,
            freeze=freeze,
            saes=tuple(used(lab, s, f, maxima=s in maxima) for s, f in sorted(needed.items())),
            **text,  # pyright: ignore[reportArgumentType]
        )

    # ------------------------------------------------------------------------------ as a file

    def to_json(self) -> str:
        """The recipe as a text."""
        data = asdict(self) | {
            "turns": [dict(turn) for turn in self.turns],
            "rows": [row.to_json() for row in self.rows],
        }
        return json.dumps({"format": FORMAT, "version": VERSION, **data}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe of `to_json`.

        Raises:
            RecipeError: With all that is wrong.
        """
        data = _object(text)
        wrong: list[str] = []

        def made(what: str, kind: Any, part: Any) -> Any:
            try:
                reads = getattr(kind, "from_json", None)
                return reads(part) if reads else kind(**checked_fields(kind, part))
            except (TypeError, ValueError) as error:
                wrong.append(f"{what}: {error}")

        parts: dict[str, Any] = {}
        for name, kind in (("rows", Row), ("saes", Used)):
            found = data.pop(name, [])
            if not isinstance(found, list):
                wrong.append(f"{name} is {found!r} and must be a list")
                continue
            what = name.removesuffix("s")
            parts[name] = tuple(made(f"{what} {i}", kind, one) for i, one in enumerate(found))
        parts["settings"] = made("settings", Settings, data.pop("settings", {}))
        recipe = None
        try:
            data = checked_fields(cls, data)
            recipe = None if wrong else cls(**data | parts)
        except (TypeError, ValueError) as error:
            wrong.append(str(error))
        if wrong:
            raise RecipeError("this recipe cannot be read", wrong)
        assert recipe is not None
        return recipe

    def save(self, path: str | Path) -> Path:
        """Write the recipe to a file, and give its path."""
        return write_whole(path, self.to_json())

    # ------------------------------------------------------------------------------ what it does

    @property
    def text(self) -> Prompt:
        """The prompt or the turns, as `lab.generate` takes them."""
        return [dict(turn) for turn in self.turns] or self.prompt

    @property
    def counting(self) -> tuple[Row, ...]:
        """The rows that change something: not muted, and not resting at their neutral value.

        Where the rest is frozen a resting row stays: the first edit says where freezing begins.
        """
        return tuple(row for row in acting(self.rows) if self.freeze or not row.neutral)

    def edits(self, lab: Lab) -> tuple[Edit, ...]:
        """The edits, freezing included.

        Raises:
            ValueError: If something does not exist in `lab`; see `problems`.
        """
        edits = tuple(row.edit(lab) for row in self.counting)
        return (*edits, *frozen(edits, lab, self.freeze))

    def problems(self, lab: Lab) -> list[str]:
        """What does not fit `lab`, a sentence each; an empty list if all does."""
        found = []
        if lab.engine.name != self.model:
            found.append(f"it was made with {self.model!r} and this lab is {lab.engine.name!r}")
        found += self.obstacles(lab)
        for one in self.saes:
            if not missing(lab, one.site, one.features):
                found += unlike(lab, one)
        return found

    def obstacles(self, lab: Lab) -> list[str]:
        """Those of `problems` with which it cannot run at all."""
        found = []
        try:
            lab.tokens(self.text)
        except (TypeError, ValueError) as error:
            found.append(f"prompt: {error}")
        # From the rows: a recipe written by hand may leave its list of SAEs out.
        for site, features in sorted(needed_features(self.rows).items()):
            found += missing(lab, site, features)
        return found

    def code(self, lab: Lab | None = None) -> str:
        """The lines of Python that make the text again.

        Args:
            lab: The lab it was made in, where that was not opened by its name alone.
        """
        lines = [
            "import workbench as wb",
            "",
            opening(lab) if lab else f"lab = wb.open({self.model!r})",
        ]
        lines += ["edits = ["] if self.counting else ["edits = []"]
        lines += [f"    {row.code()}," for row in self.counting]
        lines += ["]"] if self.counting else []
        if self.freeze and self.counting:
            lines.append(f"edits += wb.freeze_rest(edits, lab.engine.config, what={self.freeze!r})")
        options = ", ".join(f"{name}={value!r}" for name, value in asdict(self.settings).items())
        lines += [
            f"written = lab.generate({self.text!r}, edits=edits, {options})",
            "print(written)",
        ]
        return "\n".join(lines)

    def script(self, lab: Lab) -> str:
        """A program that makes the text with torch and transformers alone.

        See `workbench.recipes.standalone`.
        """
        edits = self.edits(lab)
        lab.prepare(edits)
        return standalone_script(
            lab.engine,
            lab.suite,
            self.text,
            edits,
            titles=[str(row) for row in self.counting],
            **asdict(self.settings),
        )


def open_recipe(path: str | Path) -> Recipe:
    """Open a saved recipe.

    Raises:
        OSError: If there is no such file, or it is a folder.
        RecipeError: If the file is none, or of another version; names it and lists what is wrong.
    """
    path = readable(path, "a saved recipe")
    what = f"{path} cannot be read as a recipe"
    try:
        return Recipe.from_json(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise RecipeError(
            what, [f"it is no text ({error.reason}); Recipe.save writes one"]
        ) from None
    except RecipeError as error:
        raise RecipeError(what, error.problems) from None


def check_turns(turns: object) -> Sequence[Mapping[str, str]]:
    """The turns of a chat themselves.

    Raises:
        ValueError: If they are none; says so of a system turn, which Gemma does not have.
    """
    if isinstance(turns, str | bytes | bytearray) or not isinstance(turns, Sequence):
        raise ValueError(
            "what a panel or a recipe begins with is a text, or a list of chat turns such as "
            f"[{{'role': 'user', 'content': 'Hi'}}]; got {turns!r}"
        )
    for turn in turns:
        if not isinstance(turn, Mapping) or set(turn) != {"role", "content"}:
            raise ValueError(f"a chat turn has the keys 'role' and 'content', got {turn!r}")
        if turn["role"] == "system":
            raise ValueError(
                "Gemma has no system turn: put the instruction at the beginning of the first user "
                "turn"
            )
        if turn["role"] not in ROLES:
            raise ValueError(f"a turn's role is 'user' or 'assistant', got {turn['role']!r}")
    wrong = [i for i, turn in enumerate(turns) if turn["role"] != ROLES[i % 2]]
    if wrong or len(turns) % 2 == 0 < len(turns):
        raise ValueError("the turns of a chat alternate: user, assistant, ..., and end with user")
    return turns


def frozen(edits: Sequence[Edit], lab: Lab, what: str) -> tuple[Edit, ...]:
    """What `wb.freeze_rest` adds to `edits`; nothing where there are none."""
    if not what or not edits:
        return ()
    return freeze_rest(edits, lab.engine.config, what="att" if what == "att" else "all")


def opening(lab: Lab) -> str:
    """The line that opens `lab` again; says in a comment what it cannot say in code."""
    from workbench.pocket.manifest import weights

    name, suite = lab.engine.name, lab.suite
    shipped = suite.root is None or suite.root == weights() / "sae"
    line = f"lab = wb.open({name!r}" + ("" if shipped else f", suite={str(suite.root)!r}") + ")"
    chosen = ", ".join(sae.name for sae in suite.chosen.values())
    return line + (f"  # and lab.use(...) of {chosen}" if chosen else "")


def _object(text: str) -> dict[str, Any]:
    """The JSON object of a recipe of this version, without its header."""
    what = "this recipe cannot be read"
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecipeError(
            what, [f"it is no JSON: {error.msg} in line {error.lineno}, column {error.colno}"]
        ) from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        got = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise RecipeError(what, [f"its format is {got!r} and a recipe's is {FORMAT!r}"])
    if data.get("version") != VERSION:
        raise RecipeError(
            what,
            [
                f"it is of version {data.get('version')!r} and this workbench reads {VERSION}: "
                "update sae-workbench, or save the recipe again with the version that made it"
            ],
        )
    return {key: value for key, value in data.items() if key not in ("format", "version")}
