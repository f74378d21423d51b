"""Build the fuzzers with clang, run one of them, and append what it did to bench/results/fuzz.jsonl.

`python tests/hostile/fuzz/run.py [FUZZER] [--runs N] [--seed S]`, of FUZZERS below. Exit codes: 0 no
input failed; 1 one did, and its path is printed; 3 there is no clang or cmake.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "bench"))

import run as bench  # noqa: E402

EXIT_FAILED, EXIT_ABSENT = 1, 3
FLAGS = "-O2 -g1"
SANITIZERS = "address,undefined"
LONGEST = 512  # bytes of an input
SEEDS = 300
FUZZERS = ["decode_body", "round_trip", "decode_adaptive", "decode_columns"]
SEED_WRITERS = {"decode_body": "write_seeds", "decode_columns": "write_seeds_columns"}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="tests/hostile/fuzz/run.py", description="Fuzz the compiled core.")
    parser.add_argument("fuzzer", nargs="?", choices=FUZZERS, default="decode_body")
    parser.add_argument("--runs", type=int, default=10_000_000, help="executions (10,000,000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compiler", default=os.environ.get("CLANGXX", "clang++"))
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "fuzz", help="where to build (build/fuzz)")
    parser.add_argument("--corpus", type=Path, help="inputs to begin with; made from the seed if it is not given")
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "fuzz.jsonl")
    return parser.parse_args(arguments)


def build(compiler: str, folder: Path) -> None:
    """Compile the core and the fuzzers with both sanitizers."""
    options = ["FEWBITS_PYTHON=OFF", "FEWBITS_FUZZ=ON", "FEWBITS_SANITIZE=ON", "CMAKE_BUILD_TYPE=Fuzz"]
    definitions = [f"-D{option}" for option in [*options, f"CMAKE_CXX_COMPILER={compiler}"]]
    subprocess.run(
        ["cmake", "-S", str(ROOT / "native"), "-B", str(folder), *definitions, f"-DCMAKE_CXX_FLAGS={FLAGS}"], check=True
    )
    subprocess.run(["cmake", "--build", str(folder), "--parallel", "2"], check=True)


def first_line(compiler: str) -> str:
    """Return the compiler's name and version."""
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def figures(text: str) -> dict[str, Any]:
    """Return what libFuzzer says of a run: executions, megabytes, coverage."""
    measured: dict[str, Any] = {}
    for key, name in (("number_of_executed_units", "executions"), ("peak_rss_mb", "peak_megabytes")):
        found = re.search(rf"^stat::{key}:\s*(\d+)", text, re.MULTILINE)
        measured[name] = int(found.group(1)) if found else 0
    lines = [line for line in text.splitlines() if re.match(r"#\d+\s.*\bcov: \d+", line)]
    measured["coverage"] = lines[-1].strip() if lines else None
    return measured


def changed() -> bool:
    """Return whether sources of the core or the fuzzers differ from the commit."""
    words = [
        "git",
        "--no-optional-locks",
        "status",
        "--porcelain",
        "--",
        "native",
        "tests/native",
        "tests/hostile/fuzz",
    ]
    return bool(subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip())


def fuzz(options: argparse.Namespace) -> dict[str, Any]:
    """Run the fuzzer to its end; returns the row."""
    corpus = options.corpus or options.build / f"corpus-{options.fuzzer}-{options.seed}"
    corpus.mkdir(parents=True, exist_ok=True)
    programs = options.build / "fuzz"
    if options.fuzzer in SEED_WRITERS and options.corpus is None:
        subprocess.run([programs / SEED_WRITERS[options.fuzzer], corpus, str(options.seed), str(SEEDS)], check=True)
    sizes = [path.stat().st_size for path in corpus.iterdir()]
    command = [str(programs / f"fuzz_{options.fuzzer}"), f"-seed={options.seed}", f"-runs={options.runs}"]
    command += [f"-max_len={LONGEST}", "-len_control=0", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]
    command += [f"-artifact_prefix={options.build}/failure-", str(corpus)]
    source = {"commit": bench.commit()["commit"], "changed": changed()}  # of what was built, before hours of running
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    seconds = time.perf_counter() - start
    measured = {"failures": int(done.returncode != 0), "seconds": round(seconds, 1), **figures(done.stderr)}
    if done.returncode != 0:
        print("\n".join(done.stderr.splitlines()[-60:]))
    words = ["python tests/hostile/fuzz/run.py", options.fuzzer, f"--runs {options.runs}", f"--seed {options.seed}"]
    return {
        "case": "fuzz",
        "row": options.fuzzer,
        "measured": measured,
        "asked": ["failures == 0", f"executions >= {options.runs}"],
        "passed": done.returncode == 0 and measured["executions"] >= options.runs,
        "settings": {
            "flags": FLAGS,
            "sanitizers": SANITIZERS,
            "longest_input": LONGEST,
            "corpus_files": len(sizes),
            "corpus_bytes": sum(sizes),
        },
        "command": " ".join(words),
        **source,
        "versions": {"clang": first_line(options.compiler)},
        "seed": options.seed,
        "machine": bench.machine(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, run, record; returns the exit code."""
    options = parse(arguments)
    if shutil.which(options.compiler) is None or shutil.which("cmake") is None:
        print("the fuzzers need clang and cmake.", file=sys.stderr)
        return EXIT_ABSENT
    build(options.compiler, options.build)
    row = fuzz(options)
    with options.json.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row["measured"]))
    return 0 if row["passed"] else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
