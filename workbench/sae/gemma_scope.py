"""Gemma Scope's files: one ``params.npz`` per SAE, in folders that say which.

    gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71/params.npz
                      kind       layer       d_sae     measured L0

An npz is a zip of .npy members, `W_enc (d_in, d_sae)`, `W_dec (d_sae, d_out)`, `b_enc (d_sae,)`,
`b_dec (d_out,)` and `threshold (d_sae,)`. `np.savez` does not compress, so each member lies in the
file as it does in memory: its place is found from the zip's directory, its dtype and shape from
the .npy header, and it is mapped there (`np.memmap`). Opening costs a few small reads whatever the
size, and memory is used for what is read. A mapping is private: writing to it never reaches the
file.

What cannot be mapped as it is gets copied: members of a compressed archive, a byte order or memory
order that is not native, and, on loading, float16 arrays, because float16 arithmetic overflows on
residual activations. Those are stored for their size only, and widened once, when loaded.
"""

from __future__ import annotations

import math
import os
import re
import struct
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import torch
from numpy.lib import format as npy

from workbench.sae.base import SAE, SAEConfig

__all__ = [
    "Entry",
    "Extent",
    "Member",
    "check_params",
    "entry_of",
    "find_params",
    "list_saes",
    "load_sae",
    "open_params",
    "params_config",
    "params_folder",
    "width_name",
    "write_params",
]

FILE_NAME = "params.npz"
KEYS = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
DTYPES = (np.dtype(np.float16), np.dtype(np.float32))
WIDTH_NAMES = {4096 << shift: f"{4 << shift}k" for shift in range(8)} | {
    131072: "131k",
    262144: "262k",
    524288: "524k",
    65536: "65k",
    1048576: "1m",
}
KINDS = {
    "res": "res",
    "att": "att",
    "mlp": "mlp",
    "transcoder": "transcoder",
    "transcoders": "transcoder",
    "embed": "embed",
}
# A zip's local file header: 26 bytes, then the lengths of the name and of the extra field.
LOCAL_HEADER = 30
END_RECORD = 22
# Arrays that we write start on a cache line; an extra field of this identifier pads to it.
ALIGNMENT = 64
PADDING_ID = 0xD935


@dataclass(frozen=True)
class Entry:
    """An SAE's file and what its folders say about it.

    Attributes:
        path: The ``params.npz``.
        kind: Kind of site, from the suite's folder name; empty if that does not say.
        layer: Layer; 0 for the embedding.
        width: Number of features that the folder name promises.
        l0: Mean L0 in the folder name; None where there is none.
    """

    path: Path
    kind: str
    layer: int
    width: int
    l0: float | None


@dataclass(frozen=True)
class Member:
    """One array of a file.

    Attributes:
        array: The array, mapped or copied.
        copied: Why it could not be mapped; empty if it was.
    """

    array: np.ndarray
    copied: str = ""


@dataclass(frozen=True)
class Extent:
    """Where an array lies in a file.

    Attributes:
        offset: Byte of the file at which its first value begins.
        shape: Its shape.
        dtype: Its dtype, with the byte order of the file.
        fortran: Whether columns, not rows, are contiguous.
    """

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


def width_name(d_sae: int) -> str:
    """The token for a number of features in a folder name, such as `16k` for 16384."""
    if d_sae in WIDTH_NAMES:
        return WIDTH_NAMES[d_sae]
    return f"{d_sae // 1024}k" if d_sae % 1024 == 0 else str(d_sae)


def params_folder(config: SAEConfig, l0: float | None = None) -> Path:
    """The folder of an SAE below its suite, such as `layer_20/width_16k/average_l0_71`.

    Args:
        config: The SAE's site and size.
        l0: Measured mean L0; that of `config` if left out.

    Raises:
        ValueError: Neither has an L0.
    """
    measured = config.l0 if l0 is None else l0
    if measured is None:
        raise ValueError("l0=None and the SAE's config has none: measure it, the folder names it.")
    top = "embedding" if config.kind == "embed" else f"layer_{config.layer}"
    return Path(top, f"width_{width_name(config.d_sae)}", f"average_l0_{round(measured)}")


def entry_of(path: str | Path) -> Entry:
    """Read site, width and L0 off the folders above a ``params.npz``.

    Raises:
        ValueError: The folders are not named as Gemma Scope names them.
    """
    path = Path(path)
    parts = path.absolute().parts
    found = re.fullmatch(
        r"(?:layer_(\d+)|embedding)/width_(\w+)/(?:average_l0_(\d+)|canonical)",
        "/".join(parts[-4:-1]),
    )
    width = named_width(found[2]) if found else None
    if found is None or width is None:
        raise ValueError(
            f"{path}: expected layer_{{N}}/width_{{W}}/average_l0_{{X}}/{FILE_NAME}, "
            "with a width such as 16k or 1m."
        )
    suite = parts[-5] if len(parts) >= 5 else ""
    kind = "embed" if found[1] is None else KINDS.get(re.split(r"[-_]", suite)[-1], "")
    l0 = None if found[3] is None else float(found[3])
    return Entry(path, kind, int(found[1] or 0), width, l0)


def list_saes(root: str | Path) -> list[Entry]:
    """Every SAE below a folder, sorted by kind, layer, width and L0.

    Files in folders that are named otherwise are left out.

    Args:
        root: A suite (`gemma-scope-2b-pt-res`) or a folder of suites. The kind is read from the
            end of the suite's name.

    Raises:
        ValueError: There is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder.")
    entries = []
    for path in root.rglob(FILE_NAME):
        try:
            entries.append(entry_of(path))
        except ValueError:
            continue
    return sorted(entries, key=lambda e: (e.kind, e.layer, e.width, e.l0 or 0.0))


def open_params(path: str | Path) -> dict[str, Member]:
    """Map the five arrays of a file and check all that can be checked without reading `W_*`.

    Names, shapes, dtypes and lengths of all arrays; that biases and thresholds are finite and
    thresholds not negative. `check_params` reads the rest as well.

    Args:
        path: A ``params.npz``.

    Returns:
        The arrays by name. None of them is loaded unless its ``copied`` says why.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, pickled, or not an SAE of this format.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = {
                name: _read_member(path, file, archive, info)
                for name, info in _select(path, archive).items()
            }
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is not a whole npz file ({error}): it was cut "
            "short. Delete it and fetch it again."
        ) from error
    _check_shapes(path, {name: member.array.shape for name, member in members.items()})
    for name in ("b_enc", "b_dec", "threshold"):
        _check_finite(path, name, members[name].array)
    lowest = float(members["threshold"].array.min())
    if lowest < 0:
        raise ValueError(f"{path}: threshold reaches {lowest:g}, expected no negative value.")
    return members


def find_params(file: BinaryIO, source: str) -> dict[str, Extent]:
    """Where the five arrays lie in a file, from its directory and headers only.

    Args:
        file: A seekable binary file, which need not be on this machine.
        source: What to call it in messages.

    Raises:
        ValueError: It is not a whole SAE of this format, or it is compressed, so that no array
            lies in it as it does in memory.
    """
    # zipfile takes any OSError at the end of a file for "no zip"; a connection's failure is read
    # here first, so that it stays what it is.
    file.seek(-min(END_RECORD, file.seek(0, os.SEEK_END)), os.SEEK_END)
    file.read(END_RECORD)
    try:
        with zipfile.ZipFile(file) as archive:
            chosen = _select(source, archive)
            packed = [i.filename for i in chosen.values() if i.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise ValueError(
                    f"{source}: {', '.join(packed)} compressed, so single rows cannot be read; "
                    "the whole file can."
                )
            found = {name: _extent(source, file, info) for name, info in chosen.items()}
    except zipfile.BadZipFile as error:
        raise ValueError(f"{source} is not a whole npz file ({error}).") from error
    _check_shapes(source, {name: extent.shape for name, extent in found.items()})
    return found


def check_params(path: str | Path) -> None:
    """Read a whole file once and check it: everything of `open_params`, and every value finite.

    Raises:
        ValueError: Something is wrong; the message says what.
    """
    for name, member in open_params(path).items():
        _check_finite(Path(path), name, member.array)


def load_sae(
    path: str | Path,
    *,
    model: str = "",
    layer: int | None = None,
    kind: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> SAE:
    """Open an SAE.

    A float32 file opened as float32 on the CPU is mapped: no array is copied, and pages are read
    when they are used. Any other dtype (a float16 file widened to float32, a bfloat16 SAE) and any
    other device need a copy, which is made here.

    Args:
        path: A ``params.npz``.
        model: Name of the model it belongs to.
        layer: Layer; read from the folders if left out.
        kind: Kind of site; read from the folders if left out.
        dtype: Dtype to compute in: float32 or bfloat16.
        device: Where to put it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a whole SAE (see `open_params`), or the dtype is not one of the
            two.
    """
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(
            f"dtype={dtype}: expected torch.float32 or torch.bfloat16 (float16 overflows)."
        )
    path = Path(path)
    members = open_params(path)
    tensors = {
        name: torch.from_numpy(member.array).to(device=device, dtype=dtype)
        for name, member in members.items()
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    config = params_config(path, shapes, model=model, layer=layer, kind=kind)
    return SAE(
        W_enc=tensors["W_enc"],
        b_enc=tensors["b_enc"],
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        threshold=tensors["threshold"],
        activation="jumprelu",
        config=config,
    )


def params_config(
    path: str | Path,
    shapes: dict[str, tuple[int, ...]],
    *,
    model: str = "",
    layer: int | None = None,
    kind: str | None = None,
    source: str = "",
) -> SAEConfig:
    """What an SAE's folders and the shapes of its arrays say about it.

    Args:
        path: The ``params.npz``.
        shapes: Shapes by name.
        model: Name of the model it belongs to.
        layer: Layer; read from the folders if left out.
        kind: Kind of site; read from the folders if left out.
        source: Where it is read from; `path` if left out.

    Raises:
        ValueError: The folders promise another number of features.
    """
    try:
        entry = entry_of(path)
    except ValueError:
        entry = Entry(Path(path), "", 0, 0, None)
    d_in, d_sae = shapes["W_enc"]
    if entry.width and entry.width != d_sae and width_name(d_sae) != width_name(entry.width):
        raise ValueError(f"{path}: W_enc has {d_sae} features, its folder says {entry.width}.")
    return SAEConfig(
        model=model,
        layer=entry.layer if layer is None else layer,
        kind=(entry.kind or "res") if kind is None else kind,
        width=d_sae,
        l0=entry.l0,
        source=source or str(path),
        d_in=d_in,
        d_out=shapes["W_dec"][1],
        d_sae=d_sae,
    )


def write_params(
    sae: SAE, folder: str | Path, *, dtype: type[np.floating] | np.dtype = np.float32
) -> Path:
    """Write an SAE as ``params.npz`` into a folder, whole or not at all.

    A ReLU is written as a JumpReLU with thresholds 0, which is the same function, and a
    pre-encoder bias is folded into ``b_enc``. `np.load` reads the file; its arrays are aligned, so
    that they can be mapped.

    Args:
        sae: The SAE.
        folder: Where to put the file; made if it is missing. See `params_folder`.
        dtype: `np.float32`, or `np.float16` for half the size at three digits.

    Returns:
        The path of the file.

    Raises:
        ValueError: The SAE is a TopK (the format has no place for k), or a value is not finite
            in that dtype.
    """
    stored = np.dtype(dtype)
    if stored not in DTYPES:
        raise ValueError(f"dtype={stored}: expected float16 or float32.")
    if sae.activation == "topk":
        raise ValueError(f"{sae.name} is a TopK: Gemma Scope's format has no place for its k.")
    if sae.W_skip is not None or sae.normalize != "none":
        extra = "skip connection" if sae.W_skip is not None else "normalisation of its input"
        raise ValueError(
            f"{sae.name} has a {extra}: Gemma Scope's format has no place for it; use sae.save()."
        )
    b_enc = sae.b_enc - sae.b_dec @ sae.W_enc if sae.apply_b_dec_to_input else sae.b_enc
    threshold = torch.zeros_like(b_enc) if sae.threshold is None else sae.threshold
    tensors = dict(zip(KEYS, (sae.W_enc, sae.W_dec, b_enc, sae.b_dec, threshold), strict=True))
    path = Path(folder) / FILE_NAME
    arrays = {}
    for name, tensor in tensors.items():
        with np.errstate(over="ignore"):
            arrays[name] = tensor.detach().float().cpu().numpy().astype(stored)
        _check_finite(path, name, arrays[name])
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".params-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            _write_zip(file, arrays)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a shared suite is for everybody who may read the folder.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def named_width(token: str) -> int | None:
    """Features of a width such as ``"16k"`` or ``"1m"``; None if it is no such name."""
    for width, name in WIDTH_NAMES.items():
        if name == token:
            return width
    found = re.fullmatch(r"(\d+)(k|m|)", token)
    return int(found[1]) * {"": 1, "k": 1024, "m": 1024**2}[found[2]] if found else None


def _select(path: Path | str, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The five members by name; some published files write ``w_enc`` for ``W_enc``."""
    infos = {info.filename: info for info in archive.infolist()}
    chosen = {}
    for key in KEYS:
        for spelling in (key, key[0].lower() + key[1:]):
            if f"{spelling}.npy" in infos:
                chosen[key] = infos[f"{spelling}.npy"]
    missing = [key for key in KEYS if key not in chosen]
    if missing:
        held = ", ".join(sorted(name.removesuffix(".npy") for name in infos)) or "nothing"
        raise ValueError(
            f"{path} lacks {', '.join(missing)}: a Gemma Scope SAE holds {', '.join(KEYS)}; this "
            f"file holds {held}."
        )
    return chosen


def _read_member(
    path: Path, file: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> Member:
    """Map one member, or copy it where it does not lie in the file as in memory."""
    if info.compress_type != zipfile.ZIP_STORED:
        with archive.open(info) as stream:
            shape, fortran, dtype = _npy_header(path, info, stream)
            content = stream.read()
        array = _shaped(path, info, content, shape, dtype, fortran=fortran)
        return Member(array, "the archive is compressed")
    extent = _extent(path, file, info)
    if extent.fortran or not extent.dtype.isnative:
        file.seek(extent.offset)
        content = file.read(extent.nbytes)
        array = _shaped(path, info, content, extent.shape, extent.dtype, fortran=extent.fortran)
        return Member(array, "its memory or byte order is not native")
    # Copy-on-write: torch refuses nothing and warns of nothing, and the file stays as it is.
    return Member(np.memmap(path, extent.dtype, "c", offset=extent.offset, shape=extent.shape))


def _extent(path: Path | str, file: BinaryIO, info: zipfile.ZipInfo) -> Extent:
    """Where an uncompressed member's values lie, from its two headers."""
    size = file.seek(0, os.SEEK_END)
    file.seek(info.header_offset)
    header = file.read(LOCAL_HEADER)
    if len(header) < LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"{info.filename} is not where the directory says")
    begin = info.header_offset + LOCAL_HEADER + sum(struct.unpack("<HH", header[26:30]))
    file.seek(begin)
    shape, fortran, dtype = _npy_header(path, info, file)
    extent = Extent(file.tell(), shape, dtype, fortran)
    held = info.file_size - (extent.offset - begin)
    if extent.nbytes != held or begin + info.file_size > size:
        raise ValueError(
            f"{path}: {info.filename} says {dtype} {shape} ({extent.nbytes:,} bytes), the archive "
            f"holds {held:,}. Delete the file and fetch it again."
        )
    return extent


def _npy_header(
    path: Path | str, info: zipfile.ZipInfo, stream: IO[bytes]
) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, memory order and dtype of a member; never unpickles."""
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except ValueError as error:
        raise ValueError(f"{path}: {info.filename} is not an npy array ({error}).") from error
    if dtype.hasobject:
        raise ValueError(
            f"{path}: {info.filename} is pickled. Pickles can run code and are never read; an SAE "
            "holds plain float arrays."
        )
    if dtype.newbyteorder("=") not in DTYPES:
        raise ValueError(f"{path}: {info.filename} is {dtype}, expected float16 or float32.")
    return shape, fortran, dtype


def _shaped(
    path: Path,
    info: zipfile.ZipInfo,
    content: bytes,
    shape: tuple[int, ...],
    dtype: np.dtype,
    *,
    fortran: bool,
) -> np.ndarray:
    if len(content) != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError(f"{path}: {info.filename} has {len(content):,} bytes for {dtype} {shape}.")
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    return np.array(array, dtype=dtype.newbyteorder("="), order="C")


def _check_shapes(path: Path | str, shapes: dict[str, tuple[int, ...]]) -> None:
    if len(shapes["W_enc"]) != 2 or len(shapes["W_dec"]) != 2:
        raise ValueError(
            f"{path}: W_enc {shapes['W_enc']} and W_dec {shapes['W_dec']}, expected matrices."
        )
    d_sae, d_out = shapes["W_enc"][1], shapes["W_dec"][1]
    wanted = {
        "W_dec": (d_sae, d_out),
        "b_enc": (d_sae,),
        "b_dec": (d_out,),
        "threshold": (d_sae,),
    }
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise ValueError(
                f"{path}: {name} has shape {shapes[name]}, expected {shape} beside W_enc "
                f"{shapes['W_enc']} (d_in, d_sae)."
            )
    if not all(shapes["W_enc"]) or not d_out:
        raise ValueError(f"{path}: W_enc {shapes['W_enc']}, W_dec {shapes['W_dec']}: empty.")


def _check_finite(path: Path, name: str, array: np.ndarray) -> None:
    # Row blocks: a mapped matrix larger than memory can be checked.
    rows = max(1, 2**22 // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, len(array), rows):
        finite = np.isfinite(array[start : start + rows])
        if not finite.all():
            bad = int(finite.size - finite.sum())
            raise ValueError(
                f"{path}: {name} ({array.dtype}) holds {bad} values that are not finite."
            )


def _write_zip(file: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    """An uncompressed npz whose arrays start on cache lines, the same bytes every time."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            # zipfile writes 20 more bytes of extra field when it is told to expect 4 GB.
            plain = LOCAL_HEADER + len(info.filename) + 20 + 4
            padding = -(file.tell() + plain) % ALIGNMENT
            info.extra = struct.pack("<HH", PADDING_ID, padding) + bytes(padding)
            with archive.open(info, "w", force_zip64=True) as stream:
                npy.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
