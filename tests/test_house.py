"""The house: a room imports only from lower floors, files keep their size, and the project speaks of itself alone."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mi_contrast"
FLOORS = {
    "core": 0,
    **dict.fromkeys(("estimators", "pools", "views", "models", "readout", "data"), 1),
    **dict.fromkeys(("methods", "interchange"), 2),
    **dict.fromkeys(("training", "evaluation", "reporting"), 3),
    **dict.fromkeys(
        (
            "__main__",
            "main",
            "evaluate",
            "encode",
            "export",
            "report",
            "bench",
            "estimate",
            "pairs",
            "plan",
            "study",
            "tables",
        ),
        4,
    ),
    **dict.fromkeys(("front", "run", "near", "fields", "estimation", "samples"), 4),
    **dict.fromkeys(("benchmarks", "planning", "studies"), 4),
}
BLIND = {"evaluation", "interchange", "reporting"}  # these know nothing of training or methods
FILES = sorted(p for p in PACKAGE.rglob("*.py") if "configs" not in p.relative_to(PACKAGE).parts)


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names]
    return {p[1] for p in parts if p[0] == "mi_contrast" and len(p) > 1}


def wrong_imports(room: str, tree: ast.AST) -> list[str]:
    wrong = []
    for other in imported_rooms(tree) - {room}:
        if other not in FLOORS:
            wrong.append(f"{room} imports unknown {other}")
        elif FLOORS[other] >= FLOORS[room] and FLOORS[room] < 4:
            wrong.append(f"{room} (floor {FLOORS[room]}) imports {other} (floor {FLOORS[other]})")
        elif room in BLIND and other in ("training", "methods"):
            wrong.append(f"{room} imports {other}")
    return wrong


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(file):
    if file == PACKAGE / "__init__.py":
        return
    assert wrong_imports(room_of(file), ast.parse(file.read_text())) == []


def test_the_guard_sees_a_wrong_import():
    for room, line in (
        ("models", "from mi_contrast.data import sets"),
        ("interchange", "from mi_contrast.training import loop"),
        ("core", "import mi_contrast.models"),
        ("evaluation", "from mi_contrast.methods.method import build"),
    ):
        assert wrong_imports(room, ast.parse(line))


def imports_between_rooms() -> set[tuple[str, str]]:
    """The imports that the map draws: between rooms below the jobs, without those of `core`."""
    pairs = set()
    for file in FILES:
        room = room_of(file)
        if file != PACKAGE / "__init__.py" and FLOORS[room] < 4:
            pairs |= {(room, other) for other in imported_rooms(ast.parse(file.read_text())) - {room, "core"}}
    return pairs


def read_map(text: str) -> tuple[dict[str, int], set[tuple[str, str]]]:
    """The floor of every room and the arrows between rooms, as the picture in CONTRIBUTING.md draws them."""
    floors: dict[str, int] = {}
    arrows = set()
    floor = None
    for line in re.search(r"```mermaid\n(.*?)```", text, re.S).group(1).splitlines():
        words = line.split()
        if words[0] == "subgraph":
            floor = 0 if words[1] == "ground" else int(words[1].removeprefix("floor"))
        elif words[0] == "end":
            floor = None
        elif "-->" in words and not re.search(r"floor|ground", line):
            arrows.add((words[0], words[2]))
        elif floor is not None:
            rooms = [word.partition("[")[0] for word in line.split("~~~")]
            floors |= {room.strip(): floor for room in rooms}
    return floors, arrows


def test_the_map_in_contributing_shows_the_rooms_and_their_imports():
    floors, arrows = read_map((ROOT / "CONTRIBUTING.md").read_text())
    assert floors == FLOORS
    assert arrows == imports_between_rooms()


def test_the_map_is_read_arrow_by_arrow():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    floors, arrows = read_map(text.replace("  methods --> views\n", "").replace('    data["data', '    date["data'))
    assert imports_between_rooms() - arrows == {("methods", "views")}
    assert set(FLOORS) - set(floors) == {"data"}


def test_no_tensorflow_and_files_keep_their_size():
    for file in FILES:
        text = file.read_text()
        assert not re.search(r"^\s*(import|from) tensorflow\b", text, re.M), file
        assert len(text.splitlines()) <= 400, file


def test_every_room_has_its_tests():
    for room in (p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name not in ("__pycache__", "configs")):
        if room in ("benchmarks",):
            continue
        assert list((ROOT / "tests" / room).glob("test_*.py")), room
