"""What is read from JSON: every mistake in it is named at once, and none goes through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from workbench.scopes import check_number

_PLAIN: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
}
"""What a field of a plain type may hold."""


def checked_fields(kind: type, data: object) -> dict[str, Any]:
    """`data` as keyword arguments of the dataclass `kind`.

    Raises:
        TypeError: If something is unknown, missing or of the wrong type; names all of it.
    """
    name = kind.__name__.lower()
    if not isinstance(data, Mapping):
        raise TypeError(f"a {name} is a JSON object, got {data!r}")
    known = {one.name: one for one in fields(kind)}
    wrong = [f"{key!r} is unknown" for key in sorted(data.keys() - known.keys())]
    wrong += [
        f"{key!r} is missing"
        for key, one in known.items()
        if key not in data and one.default is MISSING
    ]
    for key in known.keys() & data.keys():
        wanted = _PLAIN.get(str(known[key].type))
        got = data[key]
        # A bool is an int to Python and not to a reader.
        if wanted and (
            not isinstance(got, wanted) or (isinstance(got, bool) and bool not in wanted)
        ):
            wrong.append(f"{key!r} is {got!r} and must be {known[key].type}")
    if wrong:
        raise TypeError("; ".join(sorted(wrong)))
    return dict(data)


def check_finite(name: str, value: float) -> float:
    """`value` itself if it is a finite number.

    Raises:
        TypeError: If it is no number.
        ValueError: For NaN and infinity.
    """
    check_number(name, value)
    return value
