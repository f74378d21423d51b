"""What the training programs share: their options, checkpoints that are whole or not there, what they leave."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

Row = TypeVar("Row")


def parser_of(description: str | None, rows: Mapping[str, Any], data: str) -> argparse.ArgumentParser:
    """Return a parser of a row's name, the data folder (`data` says what it holds), and what all programs take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=sorted(rows))
    parser.add_argument("--data", type=Path, required=True, help=f"the folder that holds {data}")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, help="folder of checkpoints")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="another value of a setting (JSON)")
    return parser


def settings_of(options: argparse.Namespace, rows: Mapping[str, Row]) -> tuple[Row, dict[str, Any]]:
    """Return the row that is asked for, with what --set changes, and that."""
    changed = {name: json.loads(value) for name, _, value in (item.partition("=") for item in options.set)}
    row = rows[options.row]
    return type(row)(**{**vars(row), **changed}), changed


def checkpoint_of(options: argparse.Namespace) -> Path | None:
    """Return where a run's checkpoint is, or will be; None if there is to be none."""
    if options.resume is None:
        return None
    options.resume.mkdir(parents=True, exist_ok=True)
    return options.resume / f"{options.row}-{options.seed}.pt"


def save(state: Mapping[str, Any], checkpoint: Path | None) -> None:
    """Leave a checkpoint, if there is to be one, in place of the one before."""
    if checkpoint is not None:
        unfinished = checkpoint.with_suffix(".unfinished")
        torch.save(state, unfinished)
        unfinished.replace(checkpoint)


def tell(found: Mapping[str, Any], out: Path) -> None:
    """Print what a run was and what came out, and leave it beside the file."""
    out.with_suffix(".json").write_text(json.dumps(found) + "\n", encoding="utf8")
    print(json.dumps(found))
