"""Reads the source tree with `ast` and says where it breaks the rules of the rooms. Pure: give it a directory."""

import ast
import functools
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: The rooms a release ships; tests and benches are measured against them.
PRODUCT = (
    *("gateway", "tasks", "producers"),
    *(
        "teg.environment",
        "teg.places",
        "teg.connection_settings",
        "teg.settings",
        "teg.domain",
        "teg.adapters",
        "teg.wiring",
        "teg.console",
        "teg.fleet",
    ),
)
ROOMS = (*PRODUCT, "teg.simulator", "controller_client", "bench", "tests")

#: room → rooms it may import (itself included where it may).
MAY_IMPORT: Mapping[str, frozenset[str]] = {
    "teg.environment": frozenset(),
    "teg.places": frozenset(),
    "teg.connection_settings": frozenset({"teg.environment", "teg.places"}),
    "teg.settings": frozenset({"teg.environment", "teg.places", "teg.connection_settings"}),
    "teg.domain": frozenset({"teg.domain"}),
    "teg.adapters": frozenset(
        {"teg.domain", "teg.places", "teg.settings", "teg.adapters"}
    ),  # only its own package, see below
    "tasks": frozenset({"teg.domain", "teg.settings", "tasks"}),
    "producers": frozenset({"teg.domain", "tasks", "producers"}),
    "gateway": frozenset({"teg.wiring", "teg.domain", "teg.settings", "teg.adapters", "tasks", "producers"}),
    "teg.wiring": frozenset(
        {"teg.wiring", "teg.domain", "teg.settings", "teg.adapters", "teg.console", "tasks", "producers"}
    ),  # of the console the status page, which runs in the gateway
    "teg.console": frozenset(
        {"teg.domain", "teg.places", "teg.settings", "teg.adapters", "tasks", "teg.fleet", "teg.console"}
    ),
    "teg.fleet": frozenset({"teg.domain", "teg.adapters", "teg.fleet"}),
    "teg.simulator": frozenset({"teg.domain", "teg.simulator", "controller_client"}),
    "controller_client": frozenset({"controller_client"}),
}

#: room → third-party packages; an adapter may use one library more.
THIRD_PARTY: Mapping[str, frozenset[str]] = {
    "teg.environment": frozenset(),
    "teg.places": frozenset(),
    "teg.connection_settings": frozenset(),
    "teg.settings": frozenset(),
    "teg.domain": frozenset({"orjson"}),
    "teg.adapters": frozenset({"orjson"}),
    "tasks": frozenset(),
    "producers": frozenset(),
    "gateway": frozenset(),
    "teg.wiring": frozenset(),
    "teg.console": frozenset({"orjson", "click", "rich"}),
    "teg.fleet": frozenset(),
    "teg.simulator": frozenset(
        {"orjson", "rich", "trustme", "mmh3", "starlette", "uvicorn", "teg_controller"}
    ),  # the client, copied beside it
    "controller_client": frozenset(),
}

#: Libraries whose exceptions come through another one's calls: they count as one with it.
COMES_WITH: Mapping[str, str] = {"urllib3": "docker"}

#: The only modules that bend the queue, and what they need for it.
QUEUE_MODULES: Mapping[str, frozenset[str]] = {
    "tasks/huey_app.py": frozenset({"huey"}),
    "tasks/queue.py": frozenset({"huey"}),
    "tasks/storage.py": frozenset({"huey", "inotify_simple", "orjson", "redis", "psycopg"}),
    "tasks/consumer.py": frozenset({"huey"}),
    "tasks/timetable.py": frozenset({"huey"}),  # a type only
}

#: Standard modules that belong to adapters: the rules may not touch the outside.
NOT_IN_DOMAIN = frozenset({"sqlite3", "subprocess", "socket", "ssl", "urllib", "http", "fcntl", "multiprocessing"})


@dataclass(frozen=True, slots=True)
class Exceptions:
    """What is allowed although the rules forbid it, each with its reason; an entry that is not needed is a fault."""

    environment: Mapping[str, str] = field(default_factory=dict)  #: file → reason
    broad: Mapping[str, str] = field(default_factory=dict)  #: "file:function" → reason


@dataclass(frozen=True, slots=True)
class Imported:
    file: str
    line: int
    module: str


def source_files(root: Path, rooms: tuple[str, ...] = ROOMS) -> list[Path]:
    found: list[Path] = []
    for room in rooms:
        folder = root.joinpath(*room.split("."))
        module = folder.with_suffix(".py")
        found += [module] if module.exists() else sorted(folder.rglob("*.py"))
    return found


def _parsed(path: Path) -> ast.Module:
    return _parsed_once(path.read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=1000)  # each rule looks through the same tree
def _parsed_once(text: str) -> ast.Module:
    return ast.parse(text)


def _imports(path: Path) -> tuple[ast.Import | ast.ImportFrom, ...]:
    return _imports_once(path.read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=1000)
def _imports_once(text: str) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """Also nested ones; an import is a statement, so expressions are not looked into."""
    found: list[ast.Import | ast.ImportFrom] = []
    waiting: list[ast.AST] = [_parsed_once(text)]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop(0)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                found.append(node)
            elif not isinstance(node, ast.expr):
                waiting.append(node)
    return tuple(found)


def room_of_module(module: str) -> str | None:
    """'teg.domain.rpc.journal' → 'teg.domain'; None for what is not ours."""
    return next((room for room in ROOMS if module == room or module.startswith(room + ".")), None)


def module_name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(root: Path, path: Path) -> str:
    room = room_of_module(module_name(root, path))
    assert room is not None, path
    return room


def imports_of(root: Path, path: Path) -> Iterator[Imported]:
    """Every import, also nested ones and those under TYPE_CHECKING; relative ones are made absolute."""
    file = str(path.relative_to(root))
    for node in _imports(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Imported(file, node.lineno, alias.name)
        else:
            base = ".".join(path.relative_to(root).parts[: -node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names = [f"{module}.{alias.name}" for alias in node.names] if module in (*ROOMS, "teg") else [module]
            yield from (Imported(file, node.lineno, name) for name in names)


#: subject of `teg/domain` → the subjects it may import, each by its face: what its `__init__.py` names.
SUBJECTS: Mapping[str, frozenset[str]] = {
    "server": frozenset(),
    "telemetry": frozenset({"server"}),
    "supervision": frozenset(),
    "files": frozenset({"server"}),
    "ota": frozenset({"server", "supervision"}),
    "rpc": frozenset({"server"}),
}


def import_graph(root: Path, rooms: tuple[str, ...] = ROOMS) -> dict[str, set[str]]:
    """module → modules of ours it imports, also in functions and under TYPE_CHECKING; a package is its `__init__`."""
    names = {module_name(root, path): path for path in source_files(root, rooms)}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for name, path in names.items():
        for node in _imports(path):
            graph[name].update(target for target in _targets(root, path, node) if target in names and target != name)
    return graph


def _targets(root: Path, path: Path, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    else:
        base = ".".join(path.relative_to(root).parts[: -node.level]) if node.level else ""
        module = ".".join(part for part in (base, node.module) if part)
        submodules = [f"{module}.{alias.name}" for alias in node.names]
        folder = root.joinpath(*module.split("."))
        is_module = [bool((folder / alias.name).with_suffix(".py").exists()) for alias in node.names]
        yield from (name for name, known in zip(submodules, is_module, strict=True) if known)
        if not all(is_module):
            yield module


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan's algorithm, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []
    for start in sorted(graph):
        work = [(start, iter(sorted(graph[start])))] if start not in index else []
        if work:
            index[start] = low[start] = len(index)
            stack.append(start)
        while work:
            name, targets = work[-1]
            for target in targets:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    work.append((target, iter(sorted(graph[target]))))
                    break
                if target in stack:
                    low[name] = min(low[name], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == index[name]:
                    component = stack[stack.index(name) :]
                    del stack[stack.index(name) :]
                    found += [sorted(component)] if len(component) > 1 else []
    return found


def circle_faults(root: Path, rooms: tuple[str, ...] = ROOMS) -> list[str]:
    return [f"import one another: {', '.join(circle)}" for circle in circles(import_graph(root, rooms))]


def subject_faults(root: Path) -> list[str]:
    """A subject imports only subjects below it, and of them only the package, never a module inside."""
    faults: list[str] = []
    for name, targets in import_graph(root, ("teg.domain",)).items():
        own = _subject(name)
        for target in sorted(targets):
            other = _subject(target)
            if other is None or other == own:
                continue
            if own is None:
                faults.append(f"{name}: what all subjects share imports {target}")
            elif other not in SUBJECTS[own]:
                faults.append(f"{name}: {own} may not import {target}")
            elif target != f"teg.domain.{other}":
                faults.append(f"{name}: imports {target} past the face of {other}")
    return faults


def _subject(module: str) -> str | None:
    """'teg.domain.ota.job' → 'ota'; None for a module that all subjects share."""
    part = module.removeprefix("teg.domain").removeprefix(".").split(".")[0]
    return part if part in SUBJECTS else None


def import_faults(root: Path) -> list[str]:
    faults: list[str] = []
    for path in source_files(root):
        room = room_of(root, path)
        if room not in ("tests", "bench"):
            faults += _file_import_faults(root, path, room)
    return faults


def _file_import_faults(root: Path, path: Path, room: str) -> list[str]:
    faults: list[str] = []
    libraries: set[str] = set()
    for found in imports_of(root, path):
        top = found.module.split(".")[0]
        where = f"{found.file}:{found.line}"
        if target := room_of_module(found.module):
            faults += _room_faults(where, found, room, target)
        elif top not in sys.stdlib_module_names:
            libraries.add(COMES_WITH.get(top, top))
        elif room == "teg.domain" and top in NOT_IN_DOMAIN:
            faults.append(f"{where}: teg/domain/ imports {top}")
    return faults + _library_faults(str(path.relative_to(root)), room, libraries)


def _room_faults(where: str, found: Imported, room: str, top: str) -> list[str]:
    if top not in MAY_IMPORT[room]:
        return [f"{where}: {room} imports {found.module}"]
    if room == top == "teg.adapters" and _package(found.file) != found.module.split(".")[2]:
        return [f"{where}: an adapter imports another adapter, {found.module}"]
    return []


def _package(file: str) -> str:
    """'teg/adapters/tls.py' and 'teg/adapters/host/machine.py' → 'tls' and 'host'."""
    return Path(file).parts[2].removesuffix(".py")


def _library_faults(file: str, room: str, libraries: set[str]) -> list[str]:
    foreign = libraries - THIRD_PARTY[room] - QUEUE_MODULES.get(file, frozenset())
    if room == "teg.adapters" and "huey" not in foreign:
        return [f"{file}: more than one library: {', '.join(sorted(foreign))}"] if len(foreign) > 1 else []
    return [f"{file}: {room} imports {name}" for name in sorted(foreign)]


def environment_faults(root: Path, allowed: Exceptions) -> list[str]:
    """Who else reads the process's environment."""
    readers = {
        str(path.relative_to(root))
        for path in source_files(root, tuple(room for room in ROOMS if room not in ("tests", "bench")))
        if room_of(root, path) != "teg.settings" and _reads_environment(_parsed(path))
    }
    unknown = [f"{file} reads the environment" for file in sorted(readers - allowed.environment.keys())]
    return unknown + [f"{file} needs its exception no more" for file in sorted(allowed.environment.keys() - readers)]


def _reads_environment(tree: ast.AST) -> bool:
    names = {"environ", "environb", "getenv", "getenvb"}
    return any(
        (isinstance(node, ast.Attribute) and node.attr in names and getattr(node.value, "id", "") == "os")
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and any(alias.name in names for alias in node.names)
        )
        for node in ast.walk(tree)
    )


def broad_excepts(root: Path) -> dict[str, int]:
    """ "file:function" → line of each handler of Exception (or of everything) that does not end in a raise."""
    found: dict[str, int] = {}
    for path in source_files(root, PRODUCT):
        file = str(path.relative_to(root))
        for function in _functions(_parsed(path)):
            for node in _own_nodes(function):
                if isinstance(node, ast.ExceptHandler) and _is_broad(node) and not isinstance(node.body[-1], ast.Raise):
                    found[f"{file}:{function.name}"] = node.lineno
    return found


def broad_except_faults(root: Path, allowed: Exceptions) -> list[str]:
    found = broad_excepts(root)
    unknown = [f"{name} (line {line}) catches everything" for name, line in found.items() if name not in allowed.broad]
    return unknown + [f"{name} needs its exception no more" for name in allowed.broad if name not in found]


def _is_broad(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or getattr(kind, "id", "") in ("Exception", "BaseException") for kind in kinds)


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions inside it."""
    for node in ast.iter_child_nodes(function):
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _own_nodes(node)


def function_lengths(root: Path, rooms: tuple[str, ...] = PRODUCT) -> list[int]:
    """Lines of each function, from `def` to its last line; Protocol stubs (`...`) say nothing and are left out."""
    return [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in source_files(root, rooms)
        for node in _functions(_parsed(path))
        if not _is_stub(node)
    ]


def _is_stub(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    last = node.body[-1]
    return isinstance(last, ast.Expr) and isinstance(last.value, ast.Constant) and last.value.value is ...


def length_faults(root: Path) -> list[str]:
    lengths = sorted(function_lengths(root))
    faults = [f"{file} has {count} lines" for file, count in file_lengths(root).items() if count > 400]
    if lengths and statistics.median(lengths) > 9:
        faults.append(f"the median function has {statistics.median(lengths)} lines")
    if lengths and lengths[int(len(lengths) * 0.9)] > 30:
        faults.append(f"a tenth of the functions has more than {lengths[int(len(lengths) * 0.9)]} lines")
    return faults


def file_lengths(root: Path, rooms: tuple[str, ...] = ROOMS) -> dict[str, int]:
    return {
        str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines())
        for path in source_files(root, rooms)
    }
