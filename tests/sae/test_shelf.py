"""Which SAEs stay open under a memory budget."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import random_sae

from workbench.sae.shelf import Shelf, parse_bytes, size_of
from workbench.sites import Site

SIZE = size_of(random_sae(Site(0), 8, 0))


def test_size_is_that_of_the_five_arrays() -> None:
    sae = random_sae(Site(0), 8, 0)
    d_sae = sae.config.d_sae
    assert size_of(sae) == 4 * (d_sae * (2 * 8 + 2) + 8)


def test_the_least_recently_used_is_closed_first() -> None:
    shelf, loads = Shelf(2 * SIZE), []

    def get(name: str) -> None:
        shelf.get(name, lambda: loads.append(name) or random_sae(Site(0), 8, 0))

    for name in "abac":  # b is the oldest when c comes
        get(name)
    assert (len(shelf), shelf.bytes) == (2, 2 * SIZE)
    for name in "acb":
        get(name)
    assert loads == ["a", "b", "c", "b"]


def test_what_is_closed_is_let_go() -> None:
    shelf = Shelf(SIZE)
    first = weakref.ref(shelf.get("a", lambda: random_sae(Site(0), 8, 0)).W_enc)
    shelf.get("b", lambda: random_sae(Site(0), 8, 1))
    gc.collect()
    assert first() is None


def test_one_larger_than_the_budget_is_open_alone() -> None:
    shelf = Shelf(1)
    first = shelf.get("a", lambda: random_sae(Site(0), 8, 0))
    assert shelf.get("a", lambda: pytest.fail("it was open")) is first
    shelf.get("b", lambda: random_sae(Site(0), 8, 1))
    assert len(shelf) == 1


def test_without_a_budget_all_stay() -> None:
    shelf = Shelf()
    for name in range(20):
        shelf.get(name, lambda: random_sae(Site(0), 8, 0))
    assert len(shelf) == 20


def test_an_sae_that_cannot_be_opened_is_not_kept() -> None:
    def broken() -> None:
        raise ValueError("truncated")

    shelf = Shelf()
    for _ in range(2):
        with pytest.raises(ValueError, match="truncated"):
            shelf.get("a", broken)  # pyright: ignore[reportArgumentType]
    assert len(shelf) == 0


def test_threads_that_ask_for_one_sae_load_it_once() -> None:
    shelf, loads = Shelf(), []

    def load() -> object:
        loads.append(1)
        return random_sae(Site(0), 64, 0)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: shelf.get("a", load), range(32)))  # pyright: ignore[reportArgumentType]
    assert len(loads) == 1
    assert all(one is found[0] for one in found)


@pytest.mark.parametrize("amount", ["", "8 apples", "-1GB", "0", "GB"])
def test_what_is_no_amount_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match="give an amount such as '8GB'"):
        parse_bytes(amount)
