"""The compiled core; what is bound in native/bind_*.cpp. Reached by `fewbits.native.core()`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# instruction sets

def available_isas() -> list[str]:
    """Return the instruction sets that this build has and this machine can run, "scalar" first."""

def use_isa(name: str) -> None:
    """Use this instruction set from now on, in all threads; "" is the best there is."""

# checksums

def crc32(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """Return zlib's CRC-32 of bytes, continued from `value`; lets other threads run if they are many."""

# adaptive streams: geometries are (rows, slices, height, width), none of them 0

def encode_adaptive(arrays: list[NDArray[np.int64]], geometries: list[tuple[int, ...]]) -> bytes:
    """Return the stream of arrays."""

def decode_adaptive(data: bytes, arrays: list[NDArray[np.int64]], geometries: list[tuple[int, ...]]) -> None:
    """Decode a stream into arrays."""

def adaptive_bits(arrays: list[NDArray[np.int64]], geometries: list[tuple[int, ...]]) -> list[float]:
    """Return each array's share of the stream in bits."""

# bodies: what is read of the objects of fewbits.coder.integers are their attributes

class Output:
    """Where the integers of one array go, and what they become (fewbits.coder.elements)."""

    @staticmethod
    def integers(array: NDArray[np.integer]) -> Output:
        """Integers modulo 2^width."""

    @staticmethod
    def floats(
        array: NDArray[np.unsignedinteger],
        name: str,
        type: int,
        step: float,
        centroids: tuple[int, int, int] | None,
    ) -> Output:
        """Bits of quantised values, of the float dtype with this code."""

    @staticmethod
    def trellis(array: NDArray[np.unsignedinteger], name: str, type: int, step: float, shifts: list[float]) -> Output:
        """Bits of what the levels of a trellis stand for, of the float dtype with this code."""

    @staticmethod
    def fields(array: NDArray[np.unsignedinteger], name: str, is_signed: bool, drops: bytes) -> Output:
        """Bits of floats from sign and magnitude, `drops` low bits less for each class."""

def prefer_huge_pages(array: NDArray[np.generic]) -> None:
    """Ask the system to back an array's memory, not written to yet, by huge pages; a hint."""

def release_memory() -> None:
    """Give memory that is free back to the system, where the C library keeps it; a hint."""

def decode_body(data: bytes | memoryview, arrays: list[Any], outputs: Sequence[Output], num_threads: int) -> None:
    """Decode a body of ArraySpecs into the outputs."""

def decode_rows(
    data: bytes | memoryview, models: list[Any], lengths: NDArray[np.int64], values: NDArray[np.int32], num_threads: int
) -> None:
    """Decode a body of arrays of one row and one IntegerModel each into values, one after the other."""

def join(pieces: list[bytes]) -> bytes:
    """Return the pieces as one, in memory that is quick to fill."""

def encode_body(arrays: list[Any], wide: bool, num_threads: int, head: bytes) -> tuple[bytes, int]:
    """Encode CodedArrays; returns the body after the bytes of `head`, and how many symbols it holds."""

# fit

DescribedModel = tuple[int, int, int | tuple[int, tuple[int, ...], int] | None]
"""(shift, centre, table): the code of a shipped table, or (low, frequencies, escape), or None."""

class ShippedTables:
    """The tables that the format ships, and what integers cost under each."""

    def __init__(self, counts: NDArray[np.uint16], num_values: NDArray[np.int64]) -> None:
        """Take frequencies (192, 64), the escape's after the values', and numbers of values (192,)."""

def fit_values(values: NDArray[np.int32 | np.uint32 | np.int64], shipped: ShippedTables) -> tuple[DescribedModel, int]:
    """Return the model that codes an array's integers in the fewest bits, and the cost in 1/65536 bit."""

def fit_rows(
    values: NDArray[np.int32 | np.uint32 | np.int64],
    classes: NDArray[np.int64],
    num_classes: int,
    shipped: ShippedTables,
) -> tuple[list[DescribedModel], DescribedModel, int]:
    """Return each class's model, the model of the classes (R,) of the rows (R, n), and the cost in 1/65536 bit."""

def best_fit(
    values: NDArray[np.int32 | np.uint32 | np.int64],
    classes: NDArray[np.int64],
    num_classes: int,
    class_bytes: int,
    shipped: ShippedTables,
) -> tuple[list[DescribedModel], DescribedModel | None, int]:
    """Return as fit_rows does, or one model, None and its cost where that is cheaper even so: class_bytes a class."""

# quantize: elements are the words of fewbits.quantize.weights.Weights, `type` their dtype's code in the file format

def measure(bits: NDArray[np.unsignedinteger], type: int, bins: NDArray[np.int64]) -> tuple[bool, float, float]:
    """Return whether all elements are finite, max |w| and the sum of w^2; add |w| to a histogram (8192,)."""

def round_levels(bits: NDArray[np.unsignedinteger], type: int, step: float, levels: NDArray[np.int32]) -> bool:
    """Fill nearest levels; return False if one is out of reach."""

def row_magnitudes(levels: NDArray[np.int32], sums: NDArray[np.int64]) -> None:
    """Fill the sums (R,) of |level| over rows (R, n)."""

def rate_distortion_round(
    bits: NDArray[np.unsignedinteger],
    type: int,
    step: float,
    levels: NDArray[np.int32],
    classes: NDArray[np.int64] | None,
    low: NDArray[np.int64],
    counts: NDArray[np.int64],
    gains: NDArray[np.float64],
    rounded: NDArray[np.int32],
) -> None:
    """Fill levels (R, n) moved towards 0 by the gains (K, at most 64) of K classes of rows: `counts` from `low` on."""

def centroid_sums(
    bits: NDArray[np.unsignedinteger], type: int, step: float, levels: NDArray[np.int32]
) -> tuple[tuple[float, float, float], tuple[int, int, int]]:
    """Return sums and numbers of |w / step| - |level| for |level| = 1, 2, and 3 or more."""

def measure_distortion(
    bits: NDArray[np.unsignedinteger],
    type: int,
    step: float,
    levels: NDArray[np.int32],
    centroids: tuple[int, int, int],
) -> tuple[bool, float, float]:
    """Return whether all reconstructions are finite, the squared error and the energy."""

# trellis: shifts are how far beyond the levels -2 (and less), -1, 0, 1, 2 (and more) values lie, in steps

def trellis_levels(
    bits: NDArray[np.unsignedinteger],
    type: int,
    step: float,
    shifts: list[float],
    prices: NDArray[np.float32],
    classes: NDArray[np.int64] | None,
    levels: NDArray[np.int32],
) -> bool:
    """Fill the levels (R, n) of least error plus price (K, 255) of their row's class; False if one is out of reach."""

def trellis_sums(
    bits: NDArray[np.unsignedinteger], type: int, step: float, levels: NDArray[np.int32]
) -> tuple[tuple[float, float, float, float], tuple[int, int, int, int]]:
    """Return sums and numbers of how far weights lie beyond the levels 0, -1, 1 and all others."""

def trellis_distortion(
    bits: NDArray[np.unsignedinteger], type: int, step: float, shifts: list[float], levels: NDArray[np.int32]
) -> tuple[bool, float, float]:
    """Return whether all reconstructions are finite, the squared error and the energy."""

# columns: of a matrix (R, n), lying column after column; an element's model is its column's code plus its row's, from 0

def code_columns(
    columns: NDArray[np.float32],
    feedback: NDArray[np.float32],
    steps: NDArray[np.float32],
    row_codes: NDArray[np.int32],
    row_units: NDArray[np.float32],
    scales: NDArray[np.float64],
    shifts: NDArray[np.float32],
    prices: NDArray[np.float32],
    states: NDArray[np.uint32],
    codes: NDArray[np.int32],
    levels: NDArray[np.int32],
    totals: NDArray[np.float64],
    counts: NDArray[np.int64],
    felt: NDArray[np.float32],
    shares: NDArray[np.float32],
    segment: int,
    looked_at: int,
) -> bool:
    """Fill codes (n,) and levels (n, R); columns (n, R) become reconstructions; False if one is out of reach."""

def decode_columns(
    data: bytes | memoryview,
    num_rows: int,
    num_columns: int,
    scales: NDArray[np.float32],
    shipped_table: Callable[[int], Any],
    levels: NDArray[np.int32],
    points: NDArray[np.int32],
    type: int,
    bits: NDArray[np.unsignedinteger],
    num_threads: int,
) -> bool | None:
    """Fill the words (R, n) of a matrix from a payload that is its alone; return whether all are finite.

    None if the payload is to be read as written out, be it wrong or its levels too far from 0. Levels and points are
    room: a byte for each element, and any other.
    """

def count_models(codes: NDArray[np.int32], row_codes: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
    """Add to counts (K,) how many elements of columns (n,) and rows (R,) with these codes have each model."""

def column_values(
    levels: NDArray[np.int32],
    starts: NDArray[np.int64],
    codes: NDArray[np.int32],
    row_codes: NDArray[np.int32],
    steps: NDArray[np.float32],
    row_scales: NDArray[np.float32],
    places: NDArray[np.int32],
    shifts: NDArray[np.float32],
    num_paths: int,
    type: int,
    bits: NDArray[np.unsignedinteger],
) -> bool:
    """Fill the words of the values (R, n) of levels that lie model after model; return whether all are finite.

    Codes of rows ascend; places say where rows are in the matrix.
    """

# fields

def survey_fields(
    bits: NDArray[np.unsignedinteger],
    mantissa: int,
    magnitudes: NDArray[np.uint64],
    exponents: NDArray[np.uint64],
) -> tuple[bool, int]:
    """Fill each row's OR of magnitudes and sum of exponents; return whether there is a sign, and non-zero elements."""

def field_integers(
    bits: NDArray[np.unsignedinteger],
    drops: NDArray[np.uint64],
    with_sign: bool,
    integers: NDArray[np.uint32 | np.int64],
) -> None:
    """Fill the integers that stand for floats (R, n), without the lowest `drops` (R,) bits; int64 for 64-bit floats."""

# training steps: arrays of one size, contiguous

def relax(
    latents: NDArray[np.float32],
    first: NDArray[np.float32],
    further: float,
    step: float,
    limit: float,
    num_threads: int,
    values: NDArray[np.float32],
    slopes: NDArray[np.float32],
) -> float:
    """Fill in the values of rounded latents and the slopes of their bits; returns the bits beyond those of zeros."""

def relax_backward(
    values: NDArray[np.float32],
    value_gradients: NDArray[np.float32],
    slopes: NDArray[np.float32],
    step: float,
    bits_gradient: float,
    num_threads: int,
    gradients: NDArray[np.float32],
) -> float:
    """Fill in the gradients of latents; returns the sum of values × their gradients."""

# sparse matrices: rows of bits in whole bytes, at which byte each row's values start and whether these are bytes or
# halves, and the values, with 16 bytes more behind them

def is_sparse_sound(
    bits: NDArray[np.uint8],
    starts: NDArray[np.int32],
    wide: NDArray[np.uint8],
    values: NDArray[np.uint8],
    columns: int,
) -> bool:
    """Return whether each row has as many values as bits, and no bit behind its last column."""

def multiply_sparse(
    bits: NDArray[np.uint8],
    starts: NDArray[np.int32],
    wide: NDArray[np.uint8],
    values: NDArray[np.uint8],
    columns: int,
    matrix: NDArray[np.float32],
    num_threads: int,
    out: NDArray[np.float32],
) -> None:
    """Fill out (R, m) with the product of a sparse matrix (R, n), which must be sound, and one (n, m)."""

# shared randomness (fewbits.random): what is filled has as many elements as what it is of

def random_words(
    seed: int,
    purpose: int,
    numbers: NDArray[np.uint32],
    items: NDArray[np.uint64],
    num_places: int,
    words: NDArray[np.uint32],
) -> None:
    """Fill the words of items, of one stream or of one each."""

def random_normals(words: NDArray[np.uint32], normals: NDArray[np.float64]) -> None:
    """Fill the normal quantiles of words' uniform numbers."""

def normal_quantiles(p: NDArray[np.float64], quantiles: NDArray[np.float64]) -> None:
    """Fill normal quantiles."""

def random_logs(x: NDArray[np.float64], logs: NDArray[np.float64]) -> None:
    """Fill natural logarithms."""

# scores of candidates (fewbits.channel.scores): numbers (B,), a and b (B, D), table (D, N) or None

def fill_candidates(seed: int, number: int, start: int, count: int, z: NDArray[np.float32]) -> None:
    """Fill candidates (D, count) of a stream."""

def fill_scores(
    seed: int,
    numbers: NDArray[np.uint32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    table: NDArray[np.float32] | None,
    start: int,
    count: int,
    scores: NDArray[np.float32],
) -> None:
    """Fill scores (B, count) of candidates."""

def gumbel_argmax(
    seed: int,
    numbers: NDArray[np.uint32],
    scores: NDArray[np.float32],
    start: int,
    indices: NDArray[np.int64],
    values: NDArray[np.float64],
) -> None:
    """Fill the candidates (B,) whose scores (B, N) and Gumbel numbers sum to the most, and the sums (B,)."""

def select(
    seed: int,
    numbers: NDArray[np.uint32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    table: NDArray[np.float32] | None,
    count: int,
    is_noisy: bool,
    num_threads: int,
    indices: NDArray[np.int64],
    values: NDArray[np.float64],
) -> None:
    """Fill what gumbel_argmax finds among the first candidates, or the likeliest; their scores are never stored."""

def search(
    seed: int,
    numbers: NDArray[np.uint32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    greatest: NDArray[np.float64],
    cap: int,
    is_sorted: bool,
    num_threads: int,
    indices: NDArray[np.int64],
    num_candidates: NDArray[np.int64],
    capped: NDArray[np.bool_],
) -> None:
    """Fill the candidates (B,) of the most score - log(arrival time), and what finding them took."""
