"""Integer models as bytes (docs/format.md, sections 7 and 8)."""

from functools import cache

from fewbits.coder.integers import IntegerModel, ModelSet
from fewbits.coder.leb128 import Bytes, read_sint, read_uint, read_uints, write_sint, write_uint, write_uints
from fewbits.coder.table import Table
from fewbits.errors import Corrupt
from fewbits.models.shipped import NUM_SHIPPED, shipped_codes, shipped_table

# WIRE: first bytes of a description
_HISTOGRAM, _NO_TABLE, _SHIFTED, _CLASSES = 192, 193, 194, 195
MAX_CLASSES = 4096  # WIRE


def write_table(table: Table) -> bytes:
    """Describe a table: one byte if it is shipped, its frequencies otherwise."""
    code = shipped_codes().get(table)
    if code is not None:
        return bytes([code])
    fields = write_uints((table.num_values - 1, *table.frequencies, table.escape))
    return bytes([_HISTOGRAM]) + write_sint(table.low) + fields


def write_model(model: IntegerModel) -> bytes:
    """Describe an integer model."""
    placed = bytes([model.shift]) + write_sint(model.centre)
    if model.table is None:
        return bytes([_NO_TABLE]) + placed
    if model.shift == 0 and model.centre == 0:
        return write_table(model.table)
    return bytes([_SHIFTED]) + placed + write_table(model.table)


def write_models(models: ModelSet) -> bytes:
    """Describe a model set."""
    if models.class_model is None:
        return write_model(models.models[0])
    fields = [write_model(model) for model in (*models.models, models.class_model)]
    return bytes([_CLASSES]) + write_uint(len(models.models) - 2) + b"".join(fields)


def read_model(data: Bytes, position: int) -> tuple[IntegerModel, int]:
    """Read an integer model; returns it and the position after it.

    Raises:
        Corrupt: the bytes describe none.
    """
    if position < len(data) and data[position] < NUM_SHIPPED:
        return _shipped_model(data[position]), position + 1
    first, position = _byte(data, position)
    if first == _HISTOGRAM:
        table, position = _read_histogram(data, position)
        return IntegerModel(table), position
    if first not in (_NO_TABLE, _SHIFTED):
        raise Corrupt(f"payload byte {position - 1} begins no known integer model.")
    shift, position = _byte(data, position)
    centre, position = read_sint(data, position)
    if shift > 63:
        raise Corrupt("an integer model's shift is above 63.")
    if first == _NO_TABLE:
        return IntegerModel(None, shift, centre), position
    if _byte(data, position)[0] > _HISTOGRAM:
        raise Corrupt("a shifted integer model has no table.")
    if shift == 0 and centre == 0:
        raise Corrupt("a shifted integer model has shift 0 and centre 0: the table alone says that.")
    inner, position = read_model(data, position)
    return IntegerModel(inner.table, shift, centre), position


def read_models(data: Bytes, position: int) -> tuple[ModelSet, int]:
    """Read a model set; returns it and the position after it.

    Raises:
        Corrupt: the bytes describe none.
    """
    if _byte(data, position)[0] != _CLASSES:
        model, position = read_model(data, position)
        return ModelSet((model,)), position
    count, position = read_uint(data, position + 1)
    if count > MAX_CLASSES - 2:
        raise Corrupt(f"a model set has more than {MAX_CLASSES} classes.")
    models: list[IntegerModel] = []
    for _ in range(count + 2):
        model, position = read_model(data, position)
        models.append(model)
    class_model, position = read_model(data, position)
    return ModelSet(tuple(models), class_model), position


@cache
def _shipped_model(code: int) -> IntegerModel:
    return IntegerModel(shipped_table(code))


def _read_histogram(data: Bytes, position: int) -> tuple[Table, int]:
    low, position = read_sint(data, position)
    last, position = read_uint(data, position)
    if last > 62:
        raise Corrupt("a histogram has more than 63 values.")
    fields, position = read_uints(data, position, last + 2)
    return Table.checked(low, tuple(fields[:-1]), fields[-1]), position


def _byte(data: Bytes, position: int) -> tuple[int, int]:
    if position >= len(data):
        raise Corrupt("a payload's description runs past its end.")
    return data[position], position + 1
