"""The tables of `docs/format.md` and the payload pages, read and compared with the code and with the second decoder."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fewbits import errors
from fewbits.chunk import DTYPES, Chunk, TensorSpec
from fewbits.container import format as container_format
from fewbits.methods.blockwise import payload as blockwise_payload
from fewbits.methods.miracle import layout
from fewbits.methods.miracle import payload as miracle_payload
from fewbits.methods.sic import payload as sic_payload
from fewbits.quantize import columns, parameter_decoders
from fewbits.registry import METHODS, method_class
from tests.golden import blockwise_decoder, independent_decoder, sic_decoder


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "format.md").read_text("utf-8")


def rows(text: str, heading: str) -> Iterator[list[str]]:
    """The cells of the first table after a line that begins so."""
    lines = iter(text[re.search(rf"^{re.escape(heading)}", text, re.MULTILINE).start() :].splitlines())
    for line in lines:
        if re.fullmatch(r"\|[-| ]+\|", line):
            break
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip().strip("`") for cell in line.strip("|").split("|")]


def test_dtype_codes(page: str) -> None:
    table = {}
    for cells in rows(page, "| code | dtype |"):
        table |= {int(code): name for code, name in zip(cells[::2], cells[1::2], strict=True) if code}
    assert {code: name for code, name in table.items() if name != "reserved"} == {
        dtype.code: name for name, dtype in DTYPES.items()
    }
    assert sorted(table) == list(range(len(table)))
    second = ["reserved" if name == "-" else name for name in independent_decoder.DTYPES]
    assert [table[code] for code in sorted(table)] == second


def test_method_codes(page: str) -> None:
    sentence = re.search(r"^Method codes: (.*?)\. ", page, re.MULTILINE | re.DOTALL)[1]
    found = {id: int(code) for code, id in re.findall(r"(\d+) `(\w+)`", sentence)}
    assert found == {id: code for id, (code, _, _) in METHODS.items()}
    assert {code: id for id, code in found.items()} == independent_decoder.BARE_CODES


@pytest.mark.parametrize("id", METHODS)
def test_payload_versions(id: str, repository: Path) -> None:
    version = method_class(id).payload_version
    title = (repository / "docs" / "payload" / f"{id}.md").read_text("utf-8").splitlines()[0]
    assert title == f"# Payload `{id}`, version {version}"
    assert independent_decoder.VERSIONS[id] == version


def test_format_versions(page: str) -> None:
    versions = [int(cells[0]) for cells in rows(page, "## 11 Versions")]
    assert versions == list(range(1, container_format.FORMAT + 1))
    assert page.startswith(f"# The `.fewbits` file, format {container_format.FORMAT}\n")


def test_magic_flags_and_caps(page: str) -> None:
    fields = {cells[1]: cells[3] for cells in rows(page, "## 2 The file")}
    magic = re.match(r"`([0-9A-F ]+)`", fields["magic"].replace("89 46 57 42", "`89 46 57 42`").replace("``", "`"))[1]
    assert bytes.fromhex(magic) == container_format.MAGIC == independent_decoder.MAGIC
    assert int(fields["format"]) == container_format.FORMAT
    assert f"bit {container_format.FLAG_BARE.bit_length() - 1}: bare profile" in fields["flags"]
    assert f"bit {container_format.FLAG_DEFLATED.bit_length() - 1}: the header is deflated" in fields["flags"]
    superscripts = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
    for field in ("header_size", "index_size"):
        exponent = re.search(r"at most 2([⁰-⁹¹²³]+)", fields[field])[1].translate(superscripts)
        assert 2 ** int(exponent) == container_format.SIZE_CAP


def test_errors(page: str) -> None:
    named = {cells[0] for cells in rows(page, "## 10 Errors and limits")}
    ours = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert named == ours - {"FewbitsError"}


def test_every_payload_page_is_linked_from_the_format(page: str) -> None:
    for id in METHODS:
        assert f"payload/{id}.md" in page


def test_the_numbers_of_miracles_page(repository: Path) -> None:
    page = (repository / "docs" / "payload" / "miracle.md").read_text("utf-8")
    rows_of = {cells[0]: cells[2] for cells in [*rows(page, "| field"), *rows(page, "## Description of a tensor")]}
    bits = int(re.search(r"1 … (\d+)", rows_of["bits"])[1])
    assert bits == miracle_payload.MOST_BITS == independent_decoder.MOST_BLOCK_BITS
    shared = int(re.search(r"1 … (\d+)", rows_of["share"])[1])
    assert shared == layout.MOST_SHARED == independent_decoder.MOST_SHARED
    assert int(re.search(r"≤ (\d+);", page)[1]) == parameter_decoders.MOST_CODE
    width = int(re.search(r"N is at most (\d+)·B", page)[1])
    assert width == miracle_payload.MOST_WIDTH == independent_decoder.MOST_BLOCK_VALUES
    assert [int(number) for number in re.findall(r"±(\d+) for float16", page)] == [miracle_payload.LIMITS["float16"]]


def test_the_greatest_code_of_a_step(repository: Path) -> None:
    page = (repository / "docs" / "payload" / "epr.md").read_text("utf-8")
    most = int(re.search(r"`sint` c, \|c\| ≤ (\d+)", page)[1])
    assert most == parameter_decoders.MOST_CODE == independent_decoder.MOST_STEP_CODE


def test_the_numbers_of_sics_page(repository: Path) -> None:
    page = (repository / "docs" / "payload" / "sic.md").read_text("utf-8")
    rows_of = {cells[0]: cells[2] for cells in rows(page, "## Description") if cells[0]}
    most, none = re.search(r"0 … (\d+): P = 2\^paths, a trellis; (\d+): none", rows_of["paths"]).groups()
    assert int(none) == sic_decoder.NO_TRELLIS == int(most) + 1
    assert 1 << int(most) == columns.MOST_PATHS
    assert f"K at most {sic_payload.MOST_MODELS}" in rows_of["row classes"]
    assert f"M at most {sic_payload.MOST_MODELS}" in rows_of["models"]
    assert sic_payload.MOST_MODELS == sic_decoder.MOST_MODELS == sic_decoder.MOST_CLASSES
    assert set(re.findall(r"−(\d+)(?: …|\*? to) (\d+)", page)) == {
        (str(most), str(most)) for most in (sic_payload.MOST_SCALE_CODE, sic_payload.MOST_CODE)
    }
    assert (sic_decoder.MOST_SCALE_CODE, sic_decoder.MOST_MODEL_CODE) == (1000, 65536)
    codes = np.arange(-sic_payload.MOST_SCALE_CODE, sic_payload.MOST_SCALE_CODE + 1)
    assert sic_payload.scales_of(codes).tolist() == [sic_decoder.scale(code) for code in codes.tolist()]


def test_the_example_of_sics_page(repository: Path) -> None:
    page = (repository / "docs" / "payload" / "sic.md").read_text("utf-8")
    example = [line.split() for line in page.splitlines()[-3:]]
    matrix = [[float(value.replace("−", "-")) for value in line] for line in example]
    # One path, two classes of scale codes 0 and 8 and model codes 1 and 0, three models, no corrections. All bits are
    # raw: two of the first model's levels, two of the second's, from -1 on, three of the third's, from -3 on; none of
    # column steps, two of column codes, one of row classes.
    models = bytes([*(193, 2, 0), *(193, 2, 1), *(193, 3, 5), *(193, 0, 0), *(193, 2, 0), *(193, 1, 0)])
    described = bytes([0, 1, 0, 2, 16, 0, 2, 0]) + models
    codes = bytes([0, 0, 0, 0 | 2 << 2 | 1 << 4, 0 | 1 << 1 | 0 << 2])
    third = (0 | 3 << 3 | 4 << 6 | 2 << 9 | 3 << 12).to_bytes(2, "little")
    levels = bytes([0, 0, 0, 0, 2 | 0 << 2 | 3 << 4, *third])
    payload = described + bytes([len(codes)]) + codes + levels
    chunk = Chunk("sic", 2, {}, 0, (TensorSpec("w", "float32", (3, 3)),), payload)
    assert method_class("sic")().decode(chunk)["w"].tolist() == matrix
    tensor, piece = independent_decoder.Tensor("w", "float32", (3, 3)), independent_decoder.Piece(0, 0, 9)
    (bits,) = independent_decoder.decode_part("sic", [tensor], [piece], payload, 0)
    assert bits.view(np.float32).reshape(3, 3).tolist() == matrix


def test_the_numbers_of_blockwises_page(repository: Path) -> None:
    page = (repository / "docs" / "payload" / "blockwise.md").read_text("utf-8")
    rows_of = {cells[0]: cells[2].replace("−", "-") for cells in rows(page, "| field")}
    assert "bit 0: blocks have offsets; bit 1: scales and offsets are float32" in rows_of["flags"]
    assert (blockwise_decoder.OFFSETS, blockwise_decoder.FLOATS) == (1, 2)
    length = int(re.search(r"at most (\d+) elements", rows_of["length"])[1])
    assert length == blockwise_payload.MOST_LENGTH == blockwise_decoder.MOST_LENGTH
    unit, shift = (
        tuple(map(int, re.search(r"(-\d+) … (\d+)", rows_of[field]).groups())) for field in ("unit", "shift")
    )
    assert unit == (blockwise_payload.LEAST_UNIT, blockwise_payload.MOST_UNIT) == blockwise_decoder.UNITS
    assert shift == (-blockwise_payload.MOST_SHIFT, blockwise_payload.MOST_SHIFT) == blockwise_decoder.SHIFTS
    first, last, sign = re.search(r"bits (\d)–(\d): t, .*; bit (\d): signed", rows_of["head of scales"]).groups()
    assert (2 << int(last)) - (1 << int(first)) == blockwise_decoder.DROPPED
    assert 1 << int(sign) == blockwise_decoder.SIGNED
    signed = blockwise_payload.side_array(np.array([-1.5], np.float32))
    assert signed.head[0] == 1 << int(sign) | 22  # of a mantissa that is .1, so much is dropped
    assert "is below 2³¹;" in page and blockwise_decoder.WHOLE_BOUND == 1 << 31
    for most, is_bounded in (((1 << 31) - 1, True), (-(1 << 31), False)):
        one, many = np.ones((1, 1), np.int32), np.array([most], np.int32)
        assert blockwise_payload.Blocks(one, many, None).are_bounded() == is_bounded


def test_the_example_of_blockwises_page(repository: Path) -> None:
    page = (repository / "docs" / "payload" / "blockwise.md").read_text("utf-8")
    example = [float(value.replace("−", "-")) for value in page.splitlines()[-1].split()]
    # All bits are raw: three of levels, from -2 on; two of scales and three of offsets, from 0 on.
    models = bytes([*(193, 3, 3), *(193, 2, 0), *(193, 3, 0)])
    levels = sum(level + 2 << 3 * place for place, level in enumerate((-1, 0, 2, 1, 1, -2))).to_bytes(3, "little")
    payload = bytes([1, 2, 3, 2]) + models + bytes(3) + levels + bytes([3 | 1 << 2, 0 | 5 << 3])
    chunk = Chunk("blockwise", 1, {}, 0, (TensorSpec("w", "float32", (1, 6)),), payload)
    assert method_class("blockwise")().decode(chunk)["w"].tolist() == [example]
    tensor, piece = independent_decoder.Tensor("w", "float32", (1, 6)), independent_decoder.Piece(0, 0, 6)
    (bits,) = independent_decoder.decode_part("blockwise", [tensor], [piece], payload, 0)
    assert bits.view(np.float32).tolist() == example
