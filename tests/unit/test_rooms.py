"""The rooms of the house: imports run one way, some rooms stay free of torch, no file grows too long."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "fewbits"

# What may be imported where: a room, and the rooms directly before it. What is before those is allowed too.
# The line of the house: errors, native, random -> coder, quantize -> models, channel -> method -> methods, nn -> api
# -> images, distributed -> cli; and beside it, joined to it in api: chunk -> container -> info, verify.
BEFORE: dict[str, tuple[str, ...]] = {
    "errors": (),
    "random": ("native",),
    "chunk": ("errors",),
    "registry": ("errors",),
    "report": ("chunk",),
    "_core": (),  # compiled: its source is in native/
    "native": ("errors", "_core"),
    "coder": ("random", "native"),
    "quantize": ("coder",),
    "container": ("chunk", "registry", "coder"),
    "models": ("quantize",),
    "channel": ("models",),
    "method": ("chunk", "channel"),
    "plan": ("chunk",),
    "payload": ("chunk",),
    "patterns": (),
    "progress": (),
    "budget": ("errors",),
    "tensors": ("chunk", "quantize"),
    "nn": ("method", "plan", "payload", "patterns", "progress", "tensors", "registry"),
    "methods": ("nn",),
    "encode": ("methods",),
    "sources": ("tensors", "container"),
    "archive": ("encode", "sources"),
    "outcome": ("sources", "methods", "report"),
    "receive": ("archive",),
    "calibration": ("encode", "sources"),
    "job": ("encode", "outcome", "budget"),
    "tuned": ("job", "calibration"),
    "api": ("receive", "tuned"),
    "images": ("api",),
    "distributed": ("api",),
    "cli": ("images", "distributed", "__init__"),
    "__main__": ("cli",),
}
# With all that they load. A command that needs torch imports what needs it when it is called.
WITHOUT_TORCH = (
    "__init__",
    "budget",
    "plan",
    "payload",
    "chunk",
    "container",
    "registry",
    "report",
    "cli.main",
    "__main__",
)
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "misc", "common"}
MOST_LINES = 400

FILES = sorted(SOURCE.rglob("*.py"))
MODULES = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in FILES}
MODULES = {name.removesuffix(".__init__"): path for name, path in MODULES.items()}


def room_of(module: str) -> str:
    """The first part of a module's name inside the package; "__init__" for the package itself."""
    return module.split(".")[0]


def is_type_checking(node: ast.AST) -> bool:
    """Whether the node is an ``if TYPE_CHECKING:`` block."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(node: ast.AST, *, inside_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """All imports under a node that happen at run time; those inside functions only if asked for."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif is_type_checking(child):
            continue
        elif inside_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(child, inside_functions=inside_functions)


def imported(path: Path, *, inside_functions: bool) -> Iterator[str]:
    """Full names of the modules a file imports; ``from a import b`` gives a.b; relative ones are resolved."""
    package = ["fewbits", *path.relative_to(SOURCE).parent.parts]
    for statement in statements(ast.parse(path.read_text("utf-8")), inside_functions=inside_functions):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
            continue
        base = package[: len(package) - statement.level + 1] if statement.level else []
        prefix = ".".join([*base, *([statement.module] if statement.module else [])])
        yield from (f"{prefix}.{alias.name}" for alias in statement.names)


def own_modules(path: Path, *, inside_functions: bool) -> Iterator[str]:
    """Names inside the package of its modules that a file imports."""
    for name in imported(path, inside_functions=inside_functions):
        if name == "fewbits" or name.startswith("fewbits."):
            inner = name.removeprefix("fewbits").removeprefix(".")
            while inner and inner not in MODULES and inner != "_core":
                inner = inner.rpartition(".")[0]
            yield inner or "__init__"


def loaded_with(module: str) -> set[str]:
    """The package's modules that importing one of them loads, itself and the enclosing packages included."""
    waiting, found = [module, "__init__"], set[str]()
    while waiting:
        name = waiting.pop()
        if name in found or name not in MODULES:
            continue
        found.add(name)
        waiting += own_modules(MODULES[name], inside_functions=False)
        waiting += [name.rpartition(".")[0]]
    return found


def allowed(room: str) -> set[str]:
    """All rooms that a room may import, itself included."""
    return {room}.union(*(allowed(earlier) for earlier in BEFORE.get(room, ())))


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__init__"])
def test_imports_run_one_way(module: str) -> None:
    room = room_of(module)
    assert room in BEFORE, f"{room} has no place in BEFORE: give it one"
    for target in own_modules(MODULES[module], inside_functions=True):
        assert room_of(target) in allowed(room), f"{module} imports {target}, which is not before it"


def test_the_compiled_core_has_one_door() -> None:
    users = [name for name, path in MODULES.items() if "_core" in own_modules(path, inside_functions=True)]
    assert users == ["native"]


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name in WITHOUT_TORCH or room_of(name) in WITHOUT_TORCH]
)
def test_room_loads_no_torch(module: str) -> None:
    for name in sorted(loaded_with(module)):
        roots = {full.split(".")[0] for full in imported(MODULES[name], inside_functions=False)}
        assert "torch" not in roots, f"fewbits.{module} loads fewbits.{name}, which imports torch"
        assert "safetensors.torch" not in imported(MODULES[name], inside_functions=False)


def test_importing_the_package_and_the_command_loads_no_torch() -> None:
    program = "import sys, fewbits, fewbits.cli.main; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("module", MODULES)
def test_room_is_named_after_what_it_holds(module: str) -> None:
    parts = {part.strip("_") for part in module.split(".")}
    assert not parts & FORBIDDEN_NAMES


@pytest.mark.parametrize("module", MODULES)
def test_file_is_short_enough_to_read(module: str) -> None:
    lines = len(MODULES[module].read_text("utf-8").splitlines())
    assert lines <= MOST_LINES, f"{lines} lines: would it be easier to know as two?"
