"""The speed rows of the case `coder`: fewbits on each instruction set, and other entropy coders, in turns."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rivals import symbol_coders
from rivals.symbol_coders import SymbolCoder

from . import Options
from .inputs import minilm_folder
from .row import Absent, Figure, Measured, Row
from .timing import Action, Times, interleaved, unmeasured

REPEATS = 7
MOST_SYMBOLS = 16 << 20  # of a synthetic source
ISAS = ("scalar", "avx2", "avx512")  # the last is the best
MINILM_BITS = (2.0, 3.0, 4.0)
RIVALS = ("zipnn", "constriction")  # whom the figures name

# Figures, as times the rival's rate; symbols_per_second besides.
DECODE = {
    "scalar": (Figure("times_constriction", ">=", 8.0),),
    "avx2": (Figure("times_zipnn", ">=", 0.8),),
    "avx512": (
        Figure("symbols_per_second", ">=", 5e9),
        Figure("times_zipnn", ">=", 1.5),
        Figure("times_constriction", ">=", 50.0),
    ),
}
ENCODE = {"avx512": (Figure("times_zipnn", ">=", 1.0), Figure("times_constriction", ">=", 4.0))}
EXACT = Figure("decoded_exactly", "is", True)


class SpeedSource(NamedTuple):
    """Symbols to code: one array, or one for each tensor, of int8. `judged`: the figures are asked of it."""

    name: str
    arrays: Sequence[NDArray[np.int8]]
    judged: bool = False
    settings: Mapping[str, Any] = {}  # never written to


@dataclass
class OwnCoder:
    """fewbits on the arrays of a source: one body in 32-lane chunks, each array with its own model, one thread."""

    arrays: Sequence[NDArray[np.int8]]
    isas: Sequence[str]
    streams: dict[str, bytes] = field(default_factory=dict)  # by instruction set; all the same

    def __post_init__(self) -> None:
        """Fit the models and make the buffers."""
        from fewbits.coder.elements import Integers
        from fewbits.coder.integers import ArraySpec

        self.whole = np.concatenate(self.arrays)
        self.wide = [array.astype(np.int32) for array in self.arrays]  # as the quantiser makes them
        self.buffer = np.empty_like(self.whole)
        models = self._fitted()
        self.given = self._coded(models)
        self.specs = [ArraySpec(1, array.size, each) for array, each in zip(self.arrays, models, strict=True)]
        ends = np.cumsum([array.size for array in self.arrays])[:-1]
        self.elements = [Integers(part) for part in np.split(self.buffer, ends)]

    def _fitted(self) -> list[Any]:
        from fewbits.models.fit import fit_values

        return [fit_values(array).models for array in self.wide]

    def _coded(self, models: Sequence[Any]) -> list[Any]:
        from fewbits.coder.integers import CodedArray

        return [CodedArray(array, each) for array, each in zip(self.wide, models, strict=True)]

    def encode(self, isa: str, *, fit: bool) -> Action:
        """From int32 levels to bytes, the models given or fitted in the time measured."""
        from fewbits.coder.body import encode_body

        def run(_: None) -> bytes:
            with forced(isa):
                return encode_body(self._coded(self._fitted()) if fit else self.given, wide=True)

        def after(stream: bytes) -> bool:
            self.streams[isa] = stream
            return stream == self.streams[self.isas[0]]

        return Action(run, after=after, units=self.whole.size)

    def decode(self, isa: str) -> Action:
        """From bytes to int8 in a buffer written to before."""
        from fewbits.coder.body import decode_into

        def run(_: None) -> None:
            with forced(isa):
                decode_into(self.streams[isa], self.specs, self.elements, num_threads=1)

        # The buffer is warm, and wrong, before each run.
        return Action(
            run,
            before=lambda: self.buffer.fill(85),
            after=lambda _: np.array_equal(self.buffer, self.whole),
            units=self.whole.size,
        )


@contextlib.contextmanager
def forced(isa: str) -> Iterator[None]:
    """Let fewbits run on one instruction set."""
    before = os.environ.get("FEWBITS_ISA")
    os.environ["FEWBITS_ISA"] = isa
    try:
        yield
    finally:
        if before is None:
            del os.environ["FEWBITS_ISA"]
        else:
            os.environ["FEWBITS_ISA"] = before


def speed_rows(options: Options, synthetic: Iterable[SpeedSource]) -> Iterator[Row]:
    """Measure the synthetic sources and the levels of MiniLM, decoding and encoding."""
    isas = available_isas()
    coders = runnable()
    for source in synthetic:
        yield from _source_rows(source, isas, coders)
    with tempfile.TemporaryDirectory() as scratch:
        for source in _minilm_sources(options.seed, Path(scratch)):
            yield from _source_rows(source, isas, coders)


def available_isas() -> list[str]:
    """Return the instruction sets of the compiled core on this machine."""
    with forced("scalar"):
        from fewbits.native import core

        compiled = core()
    if compiled is None:
        raise Absent("fewbits has no compiled core here, so there is no speed to measure (make native).")
    return compiled.available_isas()


def runnable() -> list[SymbolCoder]:
    """Return the rivals that can run, and say of the others why not."""
    found: list[SymbolCoder] = []
    for coder in symbol_coders.coders():
        reason = symbol_coders.absent(coder)
        if reason is None:
            try:
                coder.start(np.arange(-2, 3, dtype=np.int8).repeat(64))
            except ImportError as error:
                reason = str(error)
        if reason is None:
            found.append(coder)
        else:
            print(f"rival {coder.name} skipped: {reason}.", file=sys.stderr)
    return found


def _minilm_sources(seed: int, scratch: Path) -> Iterator[SpeedSource]:
    try:
        checkpoint = minilm_folder() / "model.safetensors"
    except Absent as absent:
        print(f"coder: no rows of quantised MiniLM: {absent}", file=sys.stderr)
        return
    from .coded_levels import compressed_levels

    for bits in MINILM_BITS:
        levels = compressed_levels(checkpoint, bits, seed, scratch)
        settings = {"bits": bits, "tensors": len(levels.arrays), "clipped_share": levels.clipped}
        yield SpeedSource(f"minilm {bits:g} bit", levels.arrays, settings=settings)


def _source_rows(source: SpeedSource, isas: Sequence[str], coders: Sequence[SymbolCoder]) -> Iterator[Row]:
    """Encode and decode one source with everybody in turns."""
    own = OwnCoder(source.arrays, isas)
    for coder in coders:
        coder.start(own.whole)
    streams: dict[str, Any] = {}
    encoders = {coder.name: _encode_action(coder, streams) for coder in coders}
    encoders |= {f"fewbits {isa}": own.encode(isa, fit=False) for isa in isas}
    encoders |= {f"fewbits {isa} with fit": own.encode(isa, fit=True) for isa in isas}
    encoded = interleaved(_in_turns(encoders), REPEATS)
    decoders = {coder.name: _decode_action(coder, streams[coder.name]) for coder in coders}
    decoders |= {f"fewbits {isa}": own.decode(isa) for isa in isas}
    decoded = interleaved(_in_turns(decoders), REPEATS)
    sizes = {coder.name: coder.size(streams[coder.name]) for coder in coders}
    sizes |= {f"fewbits {isa}": len(own.streams[isa]) for isa in isas}
    for name in encoders:
        sizes.setdefault(name, sizes.get(name.removesuffix(" with fit"), 0))
    versions = {coder.name: symbol_coders.versions(coder) for coder in coders}
    for verb, times, figures in (("encode", encoded, ENCODE), ("decode", decoded, DECODE)):
        yield from _rows(source, verb, times, sizes, versions, figures)


def _encode_action(coder: SymbolCoder, streams: dict[str, Any]) -> Action:
    def after(stream: Any) -> bool:
        streams[coder.name] = stream
        return True  # known when it is decoded

    return Action(coder.encode, coder.copy_of_input, after, coder.num_symbols)


def _decode_action(coder: SymbolCoder, stream: Any) -> Action:
    return Action(coder.decode, lambda: coder.copy_of_stream(stream), coder.matches, coder.num_symbols)


def _in_turns(actions: Mapping[str, Action]) -> dict[str, Action]:
    """Put the rivals and our own one after the other: rival, ours, rival, ours."""
    ours = [name for name in actions if name.startswith("fewbits")]
    others = [name for name in actions if not name.startswith("fewbits")]
    order: list[str] = []
    for place in range(max(len(ours), len(others))):
        order += others[place : place + 1] + ours[place : place + 1]
    return {name: actions[name] for name in order}


def _rows(
    source: SpeedSource,
    verb: str,
    times: Mapping[str, Times],
    sizes: Mapping[str, int],
    versions: Mapping[str, Mapping[str, str]],
    figures: Mapping[str, tuple[Figure, ...]],
) -> Iterator[Row]:
    rivals = _named_rivals(times)
    for name, each in times.items():
        measured: dict[str, Measured] = {
            "symbols": each.units,
            "symbols_per_second": each.rate(),
            "wall_symbols_per_second": each.rate("wall"),
            "bits_per_symbol": 8 * sizes[name] / each.units,
            "decoded_exactly" if verb == "decode" else "same_bytes": each.right,
        }
        asked: tuple[Figure, ...] = ()
        if name.startswith("fewbits"):
            for short, rival in rivals.items():
                measured[f"times_{short}"] = each.over(times[rival])
                measured[f"times_{short}_pairwise"] = each.over_pairwise(times[rival])
            asked = figures.get(name.removeprefix("fewbits "), ()) if source.judged else ()
            asked += (EXACT,) if verb == "decode" else (Figure("same_bytes", "is", True),)
        else:
            measured.pop("same_bytes", None)
        settings = {"repeats": REPEATS, "source": source.name, **source.settings}
        yield from _row_of(Row(f"{name} {verb} {source.name}", measured, asked, settings, versions.get(name, {})))
    for isa in ISAS:
        if source.judged and f"fewbits {isa}" not in times and figures.get(isa):
            absent = Row(f"fewbits {isa} {verb} {source.name}", {}, figures[isa])
            yield unmeasured(absent, f"this machine, or this build of fewbits, has no {isa}")


def _named_rivals(times: Mapping[str, Times]) -> dict[str, str]:
    """Return whom the figures mean: zipnn, and of constriction's coders the faster."""
    found: dict[str, str] = {}
    for short in RIVALS:
        names = [name for name in times if name.startswith(short)]
        if names:
            found[short] = max(names, key=lambda name: times[name].rate())
    return found


def _row_of(row: Row) -> Iterator[Row]:
    """Yield the row; figures against a rival that is absent go in a row of their own, which was not measured."""
    open_figures = tuple(figure for figure in row.asked if figure.measure not in row.measured)
    known = tuple(figure for figure in row.asked if figure.measure in row.measured)
    yield Row(row.name, row.measured, known, row.settings, row.versions)
    if open_figures:
        names = ", ".join(figure.measure.removeprefix("times_") for figure in open_figures)
        yield unmeasured(Row(f"{row.name} against {names}", {}, open_figures), f"{names} cannot run here")
