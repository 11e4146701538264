"""Read arrays in the zarr layout, version 2 or 3, chunk by chunk.

Every chunk is decoded into room of the size that its array's metadata say, and that size is bounded, since the chunk
of a file from elsewhere may claim to hold any number of bytes, and codecs exist that run what they decode (pickle).
The layout is that of https://zarr-specs.readthedocs.io, versions 2 and 3.
"""

import bz2
import contextlib
import json
import lzma
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numcodecs
import numpy as np

from ..wording import cannot_read

_METADATA = (".zarray", "zarr.json")
_MOST_METADATA = 2**20
_MOST_CHUNK = 2**29
# Few values compress better than this; an array that claims more is a header that lies.
_MOST_PER_BYTE = 1000
_SMALL = 2**26


class ZarrArray(NamedTuple):
    """What the metadata of an array say.

    Args:
        folder: Where its chunks are.
        shape: Its size.
        chunks: The size of a chunk; the last ones reach over the edge.
        dtype: Of its values, numbers or bool.
        fill: The value of chunks that are not there.
        order: "C" or "F", the order of values within a chunk.
        compressor: Name of the codec of its chunks, or None.
        dimensions: Names of its axes, or None.
    """

    folder: Path
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    fill: float
    order: str
    compressor: str | None
    dimensions: tuple[str, ...] | None


def is_zarr_array(folder: Path) -> bool:
    """Whether a folder holds the metadata of an array."""
    return any((folder / name).is_file() for name in _METADATA)


def open_zarr(folder: Path) -> ZarrArray:
    """Read the metadata of an array, none of its chunks.

    Raises:
        ValueError: If they are damaged, or name what is not read: other values than numbers, filters, other codecs.
    """
    path = next((folder / name for name in _METADATA if (folder / name).is_file()), None)
    if path is None:
        raise ValueError(
            f"{folder}: expected a zarr array ({' or '.join(_METADATA)} inside), found none; copy it again"
        )
    metadata = _read_json(path)
    try:
        array = _version_2(folder, metadata) if path.name == ".zarray" else _version_3(folder, metadata)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, SyntaxError) as error:
        raise cannot_read(path, "the metadata of a zarr array", error) from error
    _check(array, path)
    return array


def stored_chunks(array: ZarrArray) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Yield where each chunk that is there belongs, and its values; those over the edge are cut off.

    Raises:
        ValueError: If a chunk is damaged or of another size.
    """
    for place, path in _chunk_files(array):
        yield place, _read_chunk(array, path)[tuple(slice(0, axis.stop - axis.start) for axis in place)]


def is_complete(array: ZarrArray) -> bool:
    """Whether every chunk is there; zarr leaves out those with nothing but the fill value, and so does a bad copy."""
    needed = math.prod(math.ceil(n / size) for n, size in zip(array.shape, array.chunks, strict=True))
    return sum(1 for _ in _chunk_files(array)) == needed


def _chunk_files(array: ZarrArray) -> Iterator[tuple[tuple[slice, ...], Path]]:
    for path in sorted(array.folder.rglob("*")):
        # "1.0", "1/0", "c/1/0" and "c.1.0" are all names of chunks.
        name = re.fullmatch(r"(?:c[./])?(\d{1,9}(?:[./]\d{1,9})*)", path.relative_to(array.folder).as_posix())
        index = [int(number) for number in re.split("[./]", name[1])] if name else []
        if len(index) != len(array.shape) or not path.is_file():
            continue
        starts = [i * size for i, size in zip(index, array.chunks, strict=True)]
        ends = [min(a + size, n) for a, size, n in zip(starts, array.chunks, array.shape, strict=True)]
        place = tuple(map(slice, starts, ends))
        if all(axis.start < axis.stop for axis in place):
            yield place, path


def read_zarr(array: ZarrArray, dtype: Any = None) -> np.ndarray:
    """Read a whole array; chunks that are not there are its fill value.

    Raises:
        ValueError: As `stored_chunks`, or if the array claims far more values than its files can hold.
    """
    claimed = math.prod(array.shape) * array.dtype.itemsize
    stored = sum(path.stat().st_size for path in array.folder.rglob("*") if path.is_file())
    if claimed > max(_SMALL, _MOST_PER_BYTE * stored):
        raise ValueError(
            f"{array.folder}: expected as much as its files can hold, got {claimed} bytes of shape {array.shape} in "
            f"files of {stored}; copy it again"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.full(array.shape, array.fill, dtype or array.dtype)
        for place, chunk in stored_chunks(array):
            values[place] = chunk
    return values


def _read_json(path: Path) -> Mapping[str, Any]:
    with open(path, "rb") as file:
        text = file.read(_MOST_METADATA + 1)
    try:
        if len(text) > _MOST_METADATA:
            raise ValueError("it is longer than 1 MiB")
        metadata = json.loads(text)
        if not isinstance(metadata, dict):
            raise ValueError("it is no JSON object")
    except (ValueError, RecursionError) as error:
        raise cannot_read(path, "the metadata of a zarr array", error) from error
    return metadata


def _version_2(folder: Path, metadata: Mapping[str, Any]) -> ZarrArray:
    attributes = _read_json(folder / ".zattrs") if (folder / ".zattrs").is_file() else {}
    if metadata.get("filters"):
        raise ValueError(f"filters are not read: {metadata['filters']!r:.80}")
    compressor = metadata.get("compressor")
    return ZarrArray(
        folder,
        _whole_numbers(metadata["shape"]),
        _whole_numbers(metadata["chunks"]),
        np.dtype(str(metadata["dtype"])),
        _fill(metadata.get("fill_value")),
        str(metadata.get("order", "C")),
        None if compressor is None else str(compressor["id"]),
        _names(attributes.get("_ARRAY_DIMENSIONS")),
    )


def _version_3(folder: Path, metadata: Mapping[str, Any]) -> ZarrArray:
    if metadata.get("node_type") != "array":
        raise ValueError(f"node_type is {metadata.get('node_type')!r:.80}")
    names = [str(codec["name"]) for codec in metadata["codecs"]]
    if names[0] != "bytes" or len(names) > 2:
        raise ValueError(f"codecs are not read: {', '.join(names):.80}")
    little = metadata["codecs"][0].get("configuration", {}).get("endian", "little") == "little"
    return ZarrArray(
        folder,
        _whole_numbers(metadata["shape"]),
        _whole_numbers(metadata["chunk_grid"]["configuration"]["chunk_shape"]),
        np.dtype(str(metadata["data_type"])).newbyteorder("<" if little else ">"),
        _fill(metadata.get("fill_value")),
        "C",
        names[1] if len(names) == 2 else None,
        _names(metadata.get("dimension_names") or metadata.get("attributes", {}).get("_ARRAY_DIMENSIONS")),
    )


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if not all(type(value) is int and 0 < value < 2**40 for value in values):
        raise ValueError(f"sizes are no whole numbers above 0: {values!r:.80}")
    return tuple(values)


def _fill(value: Any) -> float:
    # JSON has no NaN; the specification writes it as text, and null leaves the value open.
    return 0.0 if value is None else float(value)


def _names(values: Any) -> tuple[str, ...] | None:
    return tuple(str(value) for value in values) if values else None


def _check(array: ZarrArray, path: Path) -> None:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected an array of numbers, got {array.dtype}, which is not loaded")
    if array.compressor not in _DECODERS:
        known = ", ".join(name for name in _DECODERS if name)
        raise ValueError(f"{path}: expected chunks compressed by {known} or not, got {array.compressor!r:.80}")
    if not array.shape or len(array.chunks) != len(array.shape) or array.order not in ("C", "F"):
        raise ValueError(f"{path}: expected chunks of as many axes as the array, got {array.chunks} for {array.shape}")
    if math.prod(array.chunks) * array.dtype.itemsize > _MOST_CHUNK:
        raise ValueError(f"{path}: expected chunks of up to 512 MiB, got {array.chunks} of {array.dtype}")


def _read_chunk(array: ZarrArray, path: Path) -> np.ndarray:
    size = math.prod(array.chunks) * array.dtype.itemsize
    if path.stat().st_size > 2 * size + 2**16:
        raise cannot_read(path, f"a chunk of {size} bytes", ValueError(f"it has {path.stat().st_size}"))
    try:
        decoded = _DECODERS[array.compressor](path.read_bytes(), size)
        if len(decoded) != size:
            raise ValueError(f"it holds {len(decoded)}")
    # Each codec fails in its own way on damaged bytes.
    except Exception as error:
        raise cannot_read(path, f"a chunk of {size} bytes", error) from error
    return np.frombuffer(decoded, array.dtype).reshape(array.chunks, order=array.order)


def _into_room(codec: Any) -> Any:
    def decode(data: bytes, size: int) -> np.ndarray:
        # The codec does not say how much it wrote; room for one byte less must be too little, which it sees at once.
        with contextlib.suppress(ValueError):
            codec.decode(data, out=np.empty(size - 1, np.uint8))
            raise EOFError("it holds less")
        return codec.decode(data, out=np.empty(size, np.uint8))

    return decode


def _blosc(data: bytes, size: int) -> np.ndarray:
    # The library reads on past the end of a chunk that was cut short; bytes 4 to 16 of a chunk say how long it is.
    lengths = np.frombuffer(data[4:16], "<u4")
    if len(lengths) < 3 or lengths[0] != size or lengths[2] != len(data):
        raise ValueError("its header says another length")
    return numcodecs.Blosc().decode(data, out=np.empty(size, np.uint8))


_DECODERS = {
    None: lambda data, size: data,
    "blosc": _blosc,
    "zstd": _into_room(numcodecs.Zstd()),
    "lz4": _into_room(numcodecs.LZ4()),
    # One byte more than there should be shows that there is more.
    "zlib": lambda data, size: zlib.decompressobj().decompress(data, size + 1),
    "gzip": lambda data, size: zlib.decompressobj(31).decompress(data, size + 1),
    "bz2": lambda data, size: bz2.BZ2Decompressor().decompress(data, size + 1),
    "lzma": lambda data, size: lzma.LZMADecompressor().decompress(data, size + 1),
}
