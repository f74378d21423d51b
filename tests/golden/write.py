"""Write the golden files of the present payload versions: `python -m tests.golden.write [ID …]`.

Never run by a test. A file that is there already is left alone: goldens of released versions are not rewritten. Read
the bytes of a new one against `docs/payload/<id>.md` before committing it.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import fewbits
from fewbits import images
from fewbits.registry import method_class
from fewbits.sources import entries_of
from tests.golden.cases import IDS, Case, cases_of
from tests.golden.files import FOLDER, described, digest, module_list
from tests.golden.independent_decoder import decode_file
from tests.golden.photos import CODECS


def write(id: str, name: str, case: Case) -> Path | None:
    """Write one golden file and the JSON beside it; None if it is there already.

    Raises:
        SystemExit: the product's decoder and the second one disagree about the file.
    """
    path = FOLDER / f"{id}-{method_class(id).payload_version}-{name}.fewbits"
    if path.exists():
        return None
    entries = None if case.module is None else entries_of(case.module.state_dict(keep_vars=True), copies=False)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        trial.write_bytes(case.data)
        loaded = fewbits.load(trial, into=case.module)
    tensors = loaded if case.module is None else case.module.state_dict()
    module = None if entries is None else module_list(entries)
    known = {name: described(tensor) for name, tensor in tensors.items()}
    second = decode_file(case.data, module_tensors=module)
    if {key: digest(array) for key, array in second.items()} != {key: one["sha256"] for key, one in known.items()}:
        raise SystemExit(f"{path.name}: the two decoders disagree; one of them breaks the page. Nothing was written.")
    FOLDER.mkdir(exist_ok=True)
    path.write_bytes(case.data)
    lines = [f"  {json.dumps(key, ensure_ascii=False)}: {json.dumps(one)}" for key, one in known.items()]
    text = '{"module": ' + json.dumps(module) + ',\n "tensors": {\n' + ",\n".join(lines) + "\n}}\n"
    path.with_suffix(".json").write_text(text, "utf-8")
    return path


def main(arguments: Sequence[str]) -> int:
    """Write what is missing, of the methods named or of all."""
    for path in CODECS.glob("*.fewbits"):
        images.open_codec(path)
    for id in arguments or IDS:
        for name, make in cases_of(id).items():
            path = write(id, name, make())
            print(f"{id}, {name}: " + ("there already" if path is None else f"{path.stat().st_size} bytes"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
