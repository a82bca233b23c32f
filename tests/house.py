"""What the house looks like: its files, imports, rooms and names, read with `ast`, never imported.

`test_architecture.py` holds the limits on what is found here. `python -m tests.house` prints all
figures and everything that is against the rules, one line per place; with `--readme` it brings the
spine's lines in README up to date.

A *room* is what stands at minitl's top: a file, or a folder with all that is in it. An *arrow* goes
from a room to another that one of its files imports: at import time, inside a function, or for type
checkers alone (under `if TYPE_CHECKING:`, which for all other rules is no import). `benchmarks/`
and `weights/` count as rooms as well.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "minitl"
SPINE = PACKAGE / "spine.txt"

SPINE_LINES = 4_000  # not blank ones
LINES = 37_950  # the course is 2,400 of them, what Keras scripts use 900; to be tidied to 27,000
FILE_LINES = 600
FUNCTION_LINES = 60
PARAMETERS = 10
ENTRIES = 32  # py.typed, which type checkers look for, is one of them
ARROWS = 190  # the course (study) touches each room that it teaches
FLOORS = 12

# Functions whose arguments are Keras's own, so that a Keras script runs. Of these only the body
# counts as length, as each argument takes a line of the signature and of the docstring.
KERAS_SIGNATURES = {
    "Model.fit": "Keras's method",
    "DepthwiseConv2D.__init__": "Keras's layer",
    "SeparableConv2D.__init__": "Keras's layer",
    "Recurrent.__init__": "the arguments of Keras's LSTM and GRU",
    "image_dataset_from_directory": "Keras's function",
}

# The only files that import modules by a name made at run time.
DOORS = {
    "minitl.naming": "the list PARTS, and packages that find their own files",
    "minitl.keras_names": "what stands elsewhere than in Keras",
    "minitl.kernels": "the fast kernels, when one of them is first called",
    "minitl.kernels.fast": "all its own files, so that the twins in them are registered",
}

# Underscored names that are public: the methods of every NamedTuple.
PUBLIC = ("_replace", "_asdict", "_fields", "_make")

# Private names of other packages that are used all the same, for there is no public way.
USED_ALL_THE_SAME = {
    ("minitl.kernels.machine.compiling", "_cache"): "Numba's, which trusts what it finds",
    ("minitl.kernels.machine.compiling", "_impl"): "the same",
    ("minitl.layers.sequences.masking", "_keras_mask"): "Keras's, which scripts print",
    ("minitl.sklearn", "_check_sample_weight"): "scikit-learn's own estimators call it",
}


@dataclass(frozen=True)
class Import:
    """One module that a file imports: where, what and when."""

    file: File
    line: int
    module: str
    name: str | None  # `from module import name`
    late: bool  # only when a function runs
    typing: bool  # for type checkers only

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: imports {self.module}"


@dataclass(frozen=True)
class File:
    """One source file, read once."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def module(self) -> str:
        """'minitl.layers.base'; a package's `__init__.py` is 'minitl.layers'."""
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts).removesuffix(".__init__")

    @property
    def room(self) -> str:
        return room_of(self.module)

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @cached_property
    def late_nodes(self) -> set[ast.AST]:
        functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        return {
            inner
            for node in ast.walk(self.tree)
            if isinstance(node, functions)
            for inner in ast.walk(node)
            if inner is not node
        }

    @cached_property
    def typing_nodes(self) -> set[ast.AST]:
        """All that stands under `if TYPE_CHECKING:`."""
        return {
            inner
            for node in ast.walk(self.tree)
            if isinstance(node, ast.If)
            and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
            for statement in node.body
            for inner in ast.walk(statement)
        }

    @cached_property
    def all_imports(self) -> list[Import]:
        found = []
        for node in ast.walk(self.tree):
            when = node in self.late_nodes, node in self.typing_nodes
            if isinstance(node, ast.Import):
                for alias in node.names:
                    found.append(Import(self, node.lineno, alias.name, None, *when))
            elif isinstance(node, ast.ImportFrom):
                source = "." * node.level + (node.module or "")
                for alias in node.names:
                    whole = f"{source}.{alias.name}"
                    module, name = (whole, None) if whole in modules() else (source, alias.name)
                    found.append(Import(self, node.lineno, module, name, *when))
        return found

    @property
    def imports(self) -> list[Import]:
        """Those that ever happen."""
        return [each for each in self.all_imports if not each.typing]

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))


@cache
def files(folder: str = "minitl") -> tuple[File, ...]:
    return tuple(File(path) for path in sorted((ROOT / folder).rglob("*.py")))


@cache
def modules() -> dict[str, File]:
    """All modules of minitl by their names."""
    return {file.module: file for file in files()}


def room_of(module: str) -> str:
    """'minitl.layers.base' -> 'layers'; the package's own `__init__.py` is the room 'minitl'."""
    top, _, rest = module.partition(".")
    return (rest.split(".")[0] or "minitl") if top == "minitl" else top


def own(module: str) -> bool:
    return module.split(".")[0] == "minitl"


def third_party(module: str) -> bool:
    return not own(module) and module.split(".")[0] not in sys.stdlib_module_names


# --- Size and form --------------------------------------------------------------------------------


def lines_of_package() -> int:
    return sum(file.lines for file in files())


def entries() -> list[str]:
    """What a reader sees who opens minitl/."""
    return sorted(path.name for path in PACKAGE.iterdir() if path.name != "__pycache__")


def rooms() -> list[str]:
    """The rooms as a map writes them: 'layers/', 'autograd.py'. `__init__.py` is none."""
    places = (path for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir())
    names = (path.name + "/" * path.is_dir() for path in places)
    return sorted(name for name in names if name not in ("__init__.py", "__pycache__/"))


def files_too_long() -> list[str]:
    return [f"{file}: {file.lines} lines" for file in files() if file.lines > FILE_LINES]


def files_without_docstring() -> list[str]:
    return [f"{file}: no docstring" for file in files() if not ast.get_docstring(file.tree)]


def files_named_wrongly() -> list[str]:
    """`choosing.py` in a docstring or comment: it must be there, as seen from the file itself, or
    from the top of the package or of the repository."""
    found = []
    for file in files():
        for number, line in enumerate(file.text.splitlines(), 1):
            for name in re.findall(r"`([\w/]+\.py)`", line):
                if not any((top / name).exists() for top in (file.path.parent, PACKAGE, ROOT)):
                    found.append(f"{file}:{number}: there is no {name}")
    return found


def functions(file: File) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The functions of a file, those inside others included: ('Model.fit', its definition)."""

    def walk(node: ast.AST, outer: str) -> Iterator:
        for child in ast.iter_child_nodes(node):
            name = outer
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = f"{outer}.{child.name}".lstrip(".")
                if not isinstance(child, ast.ClassDef):
                    yield name, child
            yield from walk(child, name)

    return walk(file.tree, "")


def length(function: ast.FunctionDef | ast.AsyncFunctionDef, body_alone: bool = False) -> int:
    """Lines from `def` to the last; or those of the body after its docstring."""
    first = function.lineno
    if body_alone:
        body = function.body[1:] if ast.get_docstring(function) else function.body
        first = body[0].lineno if body else function.lineno
    return (function.end_lineno or first) - first + 1


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many there are; neither `self` nor `cls`."""
    all_of_them = function.args
    named = [*all_of_them.posonlyargs, *all_of_them.args]
    count = len(named) + len(all_of_them.kwonlyargs)
    count -= bool(named) and named[0].arg in ("self", "cls")
    return count + (all_of_them.vararg is not None) + (all_of_them.kwarg is not None)


def functions_too_long() -> list[str]:
    found = []
    for file in files():
        for name, function in functions(file):
            lines = length(function, body_alone=name in KERAS_SIGNATURES)
            if lines > FUNCTION_LINES:
                found.append(f"{file}:{function.lineno}: {name} has {lines} lines")
    return found


def functions_too_wide() -> list[str]:
    return [
        f"{file}:{function.lineno}: {name} has {parameters(function)} parameters"
        for file in files()
        for name, function in functions(file)
        if parameters(function) > PARAMETERS and name not in KERAS_SIGNATURES
    ]


def idle_exceptions() -> list[str]:
    """Entries of KERAS_SIGNATURES that need not be there."""
    wide = {
        name
        for file in files()
        for name, function in functions(file)
        if parameters(function) > PARAMETERS or length(function) > FUNCTION_LINES
    }
    return [f"{name} is no exception" for name in KERAS_SIGNATURES if name not in wide]


# --- The spine ------------------------------------------------------------------------------------


def spine() -> list[str]:
    """The spine's files in reading order, relative to minitl/."""
    lines = (line.partition("#")[0].strip() for line in SPINE.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def spine_lines(name: str) -> int:
    """Lines of one of the spine's files that are not blank."""
    return sum(bool(line.strip()) for line in (PACKAGE / name).read_text("utf-8").splitlines())


def spine_files() -> list[File]:
    return [File(PACKAGE / name) for name in spine() if (PACKAGE / name).exists()]


def missing_from_spine() -> list[str]:
    return [f"spine.txt: there is no {name}" for name in spine() if not (PACKAGE / name).exists()]


def spine_leaves_itself() -> list[str]:
    """Imports by which the spine reaches what is not of it."""
    inside = {file.module for file in spine_files()}
    found = []
    for file in spine_files():
        for each in file.imports:
            if own(each.module):
                parents = each.module.split(".")
                needed = [".".join(parents[: i + 1]) for i in range(len(parents))]
                bad = not inside.issuperset(needed)
            else:
                top = each.module.split(".")[0]
                bad = (
                    third_party(each.module)
                    and top != "numpy"
                    and (top, each.late) != ("h5py", True)
                )
            if bad:
                found.append(f"{each}{', inside a function' * each.late}")
    return list(dict.fromkeys(found))


# --- Imports --------------------------------------------------------------------------------------


def arrows_between_files() -> dict[str, set[str]]:
    """Which modules of minitl each one imports, ever."""
    return {
        file.module: {each.module for each in file.imports if each.module in modules()}
        - {file.module}
        for file in files()
    }


def arrows_between_rooms(typing: bool = True) -> dict[str, set[str]]:
    """Which rooms each room imports, those for type checkers too unless told otherwise."""
    found: dict[str, set[str]] = {}
    for file in (*files(), *files("benchmarks"), *files("weights")):
        imports = file.all_imports if typing else file.imports
        others = {room_of(each.module) for each in imports if own(each.module)}
        found.setdefault(file.room, set()).update(others - {file.room})
    return found


def count(arrows: dict[str, set[str]]) -> int:
    return sum(len(others) for others in arrows.values())


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups in which every member reaches every other (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(arrows.get(node, ())):
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(arrows):
        if node not in order:
            visit(node)
    return found


def floors(arrows: dict[str, set[str]]) -> list[list[str]]:
    """The rooms, from the ground up: each stands above all that it imports.

    A circle stands as one, as high as if its rooms stood on one another.
    """
    circle = {room: group for group in circles(arrows) for room in group}
    heights: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in heights:
            group = circle.get(room, [room])
            others = {other for each in group for other in arrows.get(each, ())} - set(group)
            found = len(group) + max(map(height, others), default=0)
            heights.update(dict.fromkeys(group, found))
        return heights[room]

    top = max(map(height, arrows))
    return [sorted(r for r in heights if heights[r] == floor + 1) for floor in range(top)]


def late_imports() -> list[str]:
    """Modules of minitl's own that are imported inside functions."""
    return sorted(
        {str(each) for file in files() for each in file.imports if each.late and own(each.module)}
    )


def imports_by_name() -> list[str]:
    """Calls that import a module whose name is a string, outside of DOORS."""
    return [
        f"{file}:{node.lineno}: {ast.unparse(node)}"
        for file in files()
        if file.module not in DOORS
        for node in ast.walk(file.tree)
        if (isinstance(node, ast.Name) and node.id in ("__import__", "import_module"))
        or (isinstance(node, ast.Attribute) and node.attr == "import_module")
    ]


def relative_imports() -> list[str]:
    return [str(each) for file in files() for each in file.imports if each.module.startswith(".")]


def parts() -> dict[str, tuple[str, str]]:
    """`naming.PARTS`: {key: (module, the comment that says what for)}."""
    file = modules()["minitl.naming"]
    table = next(
        node.value
        for node in file.tree.body
        if isinstance(node, ast.Assign)
        and [ast.unparse(target) for target in node.targets] == ["PARTS"]
        and isinstance(node.value, ast.Dict)
    )
    found = {}
    for key, value in zip(table.keys, table.values, strict=True):
        comment = file.text.splitlines()[value.lineno - 1].partition("#")[2].strip()
        found[ast.literal_eval(key)] = ast.literal_eval(value), comment
    return found


def parts_opened() -> list[tuple[str, str, str]]:
    """(place, key, function or '') of each call of naming's `part` or `elsewhere`.

    Where the key is no constant, its source.
    """
    found = []
    for file in files():
        names = {
            name: f"{prefix}{name}"
            for each in file.imports
            if each.module == "minitl.naming"
            for name in ("part", "elsewhere")
            for prefix in ([""] if each.name == name else ["naming."] if each.name is None else [])
        }
        if file.module == "minitl.naming":
            names["part"] = "part"
        for node in ast.walk(file.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in names.values():
                if file.module == "minitl.naming" and not isinstance(node.args[0], ast.Constant):
                    continue  # `part` itself, which is given a name
                given = [str(getattr(a, "value", None) or ast.unparse(a)) for a in node.args]
                method = given[1] if len(given) > 1 else ""
                found.append((f"{file}:{node.lineno}", given[0], method))
    return found


def wrong_parts() -> list[str]:
    found = []
    opened = parts_opened()
    inside = {file.module for file in spine_files()}
    for key, (module, reason) in parts().items():
        if module not in modules():
            found.append(f"PARTS[{key!r}]: there is no {module}")
        if module in inside:
            found.append(f"PARTS[{key!r}]: {module} is of the spine, which can be imported")
        if not reason:
            found.append(f"PARTS[{key!r}]: no comment says what for")
        if key not in {key for _, key, _ in opened}:
            found.append(f"PARTS[{key!r}]: nothing opens it")
    for place, key, method in opened:
        if key not in parts():
            found.append(f"{place}: PARTS has no {key}")
        elif method and parts()[key][0] in modules():
            body = modules()[parts()[key][0]].tree.body
            there = {getattr(node, "name", "") for node in body}
            there |= {alias.name for node in body for alias in getattr(node, "names", ())}
            if method not in there:
                found.append(f"{place}: {parts()[key][0]} has no {method}")
    return found


# --- Private names --------------------------------------------------------------------------------


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and len(name) > 1 and name not in PUBLIC


def attributes_defined(file: File) -> set[str]:
    """Attributes of the classes of this file: from their bodies, `__slots__` and `self._x =`."""
    found = set()
    for node in ast.walk(file.tree):
        if isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    found.add(each.name)
                targets = each.targets if isinstance(each, ast.Assign) else []
                if isinstance(each, ast.AnnAssign):
                    targets = [each.target]
                for target in targets:
                    found.update(n.id for n in ast.walk(target) if isinstance(n, ast.Name))
                    if ast.unparse(target) == "__slots__":
                        strings = (n.value for n in ast.walk(each) if isinstance(n, ast.Constant))
                        found.update(s for s in strings if isinstance(s, str))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if ast.unparse(node.value) in ("self", "cls"):
                found.add(node.attr)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("__setattr__"):
            name = node.args[1] if len(node.args) > 2 else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                found.add(name.value)
    return found


def private_uses() -> list[str]:
    """Private names of other modules, and private attributes of classes in other files."""
    found, needed = [], set()
    for file in files():
        for line, name, text in private_names(file):
            if (file.module, name) in USED_ALL_THE_SAME:
                needed.add((file.module, name))
            else:
                found.append(f"{file}:{line}: {text}")
    idle = USED_ALL_THE_SAME.keys() - needed
    return found + [f"{name} is not used in {module}" for module, name in sorted(idle)]


def private_names(file: File) -> Iterator[tuple[int, str, str]]:
    """(line, name, source) of each use of a private name that the file does not define itself."""
    defined = attributes_defined(file)
    aliases = set()  # names that stand for modules
    for node in ast.walk(file.tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            source = node.module if isinstance(node, ast.ImportFrom) else None
            for alias in node.names:
                if source is None or f"{source}.{alias.name}" in modules():
                    aliases.add(alias.asname or alias.name.split(".")[0])
                if source and source != "__future__" and private(alias.name):
                    yield node.lineno, alias.name, f"{source}.{alias.name}"
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Attribute):
            owner, name = node.value, node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr"):
            constant = node.args[1]
            owner, name = node.args[0], str(getattr(constant, "value", ""))
        else:
            continue
        if private(name) and (ast.unparse(owner) in aliases or name not in defined):
            yield node.lineno, name, ast.unparse(node)


# --- All of it ------------------------------------------------------------------------------------

RULES = {
    "the spine's files that are not there": missing_from_spine,
    "imports by which the spine leaves itself": spine_leaves_itself,
    "imports inside functions": late_imports,
    "imports by a name made at run time": imports_by_name,
    "relative imports": relative_imports,
    "PARTS": wrong_parts,
    "circles of files": lambda: [", ".join(c) for c in circles(arrows_between_files())],
    "circles of rooms": lambda: [", ".join(c) for c in circles(arrows_between_rooms(typing=False))],
    "private names of others": private_uses,
    "functions that are too long": functions_too_long,
    "functions with too many parameters": functions_too_wide,
    "exceptions that are none": idle_exceptions,
    "files that are too long": files_too_long,
    "files without a docstring": files_without_docstring,
    "files that are named wrongly": files_named_wrongly,
}


# --- The route through the source that README shows -----------------------------------------------

WORDS, CODE = 200, 25  # a minute: words of prose, lines of code


def reading(*patterns: str) -> tuple[int, int]:
    """Words of prose and lines of code (not blank) in files: Markdown below docs/, code in the
    package. Snippets count as code."""
    words = lines = 0
    for pattern in patterns:
        found = sorted((PACKAGE if pattern.endswith(".py") else ROOT).glob(pattern))
        assert found, pattern
        for path in found:
            text = path.read_text("utf-8")
            if path.suffix == ".md":
                for snippet in re.findall(r"(?ms)^```python\n(.*?)^```$", text):
                    lines += sum(bool(line.strip()) for line in snippet.splitlines())
                words += len(re.sub(r"(?ms)^```.*?^```$", "", text).split())
            else:
                lines += sum(bool(line.strip()) for line in text.splitlines())
    return words, lines


def route() -> list[tuple[str, str, int, int, int]]:
    """README's route: how to read a stop, what it is, its words, its lines, its minutes."""
    chapters = "[chapters](docs/README.md)"
    later = [f"docs/{n}-*.md" for n in (8, 9, 10)]
    stops = [
        ("must read", f"{chapters} 1 to 7", ["docs/[1-7]-*.md"]),
        ("must read", "the spine, in the order below", spine()),
        ("on demand", f"{chapters} 8 to 10", later),
        *(("on demand", *stop) for stop in ON_DEMAND),
    ]
    rows = [(how, what, *reading(*files)) for how, what, files in stops]
    of_package = sum(row[3] for row in rows if "chapters" not in row[1])
    rest = reading("**/*.py")[1] - of_package
    rows.append(("skip", "everything else, until you need it", 0, rest))
    return [(*row, round(row[2] / WORDS + row[3] / CODE)) for row in rows]


ON_DEMAND = (
    (
        "F, the cut, stages and the optimum: five files of `transfer/`",
        [f"transfer/{n}.py" for n in ("features", "cut", "feature_cache", "stages", "optimum")],
    ),
    (
        "fast convolutions: `kernels/fast/im2col.py`, `kernels/fast/winograd.py`",
        ["kernels/fast/im2col.py", "kernels/fast/winograd.py"],
    ),
    ("a training that goes on: `callbacks/backup.py`", ["callbacks/backup.py"]),
    ("the whole job in a row: `cli/demo.py`", ["cli/demo.py"]),
)


def route_table() -> str:
    """The route as README shows it."""
    lines = ["| | what | words | lines | minutes |", "|---|---|---:|---:|---:|"]
    for how, what, words, code, minutes in route():
        cells = [f"{words:,}" if words else "", f"{code:,}", "" if how == "skip" else str(minutes)]
        lines.append(f"| {how} | {what} | {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines)


def renew_readme() -> None:
    """Write the spine's lines, and the route, as they are into README."""
    path = ROOT / "README.md"
    text = path.read_text("utf-8")
    for name in spine():
        text = re.sub(rf"(?m)^(\| `{name}` \|) \d+ ", rf"\1 {spine_lines(name)} ", text)
    total = sum(map(spine_lines, spine()))
    text = re.sub(r"(?<=the \*spine\*, )[\d,]+(?= lines)", f"{total:,}", text)
    table = f"<!-- route:start -->\n{route_table()}\n<!-- route:end -->"
    text = re.sub(r"(?s)<!-- route:start -->.*<!-- route:end -->", lambda _: table, text)
    path.write_text(text, "utf-8")


def main() -> None:
    arrows = arrows_between_rooms()
    print(f"{lines_of_package():,} lines (limit {LINES:,}) in {len(files())} files")
    print(
        f"{sum(map(spine_lines, spine())):,} lines of the spine (limit {SPINE_LINES:,}), in order:"
    )
    for name in spine():
        print(f"    {spine_lines(name) if (PACKAGE / name).exists() else '-':>5}  {name}")
    print(f"{len(entries())} entries at minitl's top (limit {ENTRIES})")
    print(f"{len(arrows)} rooms, {count(arrows)} arrows between them (limit {ARROWS})")
    print(f"{len(floors(arrows))} floors (limit {FLOORS}), from the top:")
    for floor, here in reversed(list(enumerate(floors(arrows), 1))):
        print(f"    {floor:>2}  {', '.join(here)}")
    for title, rule in RULES.items():
        found = rule()
        print(f"{len(found)} {title}")
        for line in found:
            print(f"    {line}")


if __name__ == "__main__":
    renew_readme() if sys.argv[1:] == ["--readme"] else main()
