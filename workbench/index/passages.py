"""The activations of a passage as a few bytes: most tokens of a passage do not fire.

before, after           tokens to the left and to the right of the example
beaten                  1 if another token of the passage fires more, else 0
[largest]               in that case how much that one fires, float32
(place, part) ...       of every other token that fires, its place and its 255ths of the largest
"""

from __future__ import annotations

import struct

import numpy as np

from workbench.index.corpus import WINDOW

HEAD, LARGEST = 3, 4


def pack(entries: np.ndarray) -> np.ndarray:
    """Bytes of each entry of `workbench.index.best.ENTRY`, an array of objects."""
    count = len(entries)
    window = entries["window"].copy()
    window[:, WINDOW] = 0
    offset = np.arange(window.shape[1]) - WINDOW
    before, after = entries["before"][:, None].astype(int), entries["after"][:, None].astype(int)
    window[(offset < -before) | (offset > after)] = 0
    row, place = np.nonzero(window)
    beaten = entries["largest"] > entries["value"]
    fixed = HEAD + LARGEST * beaten
    others = np.bincount(row, minlength=count)
    lengths = fixed + 2 * others
    ends = np.cumsum(lengths)
    starts = ends - lengths
    out = np.zeros(int(lengths.sum()), np.uint8)
    out[starts], out[starts + 1], out[starts + 2] = entries["before"], entries["after"], beaten
    largest = entries["largest"].astype("<f4").view(np.uint8).reshape(count, LARGEST)
    for byte in range(LARGEST):
        out[starts[beaten] + HEAD + byte] = largest[beaten, byte]
    first = np.cumsum(others) - others
    at = starts[row] + fixed[row] + 2 * (np.arange(len(row)) - first[row])
    out[at], out[at + 1] = place - WINDOW + entries["before"][row], window[row, place]
    whole = out.tobytes()
    packed = np.empty(count, object)
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        packed[i] = whole[start:end]
    return packed


def unpack(packed: bytes, value: float) -> tuple[int, int, list[float]]:
    """Tokens before and after the example, and the activation of each token of the passage."""
    before, after, beaten = packed[:HEAD]
    rest, largest = packed[HEAD:], value
    if beaten:
        (largest,), rest = struct.unpack("<f", rest[:LARGEST]), rest[LARGEST:]
    activations = [0.0] * (before + 1 + after)
    activations[before] = value
    for place, part in zip(rest[::2], rest[1::2], strict=True):
        activations[place] = part * largest / 255
    return before, after, activations
