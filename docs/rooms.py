"""Draws ``docs/pictures/rooms.svg``: the rooms of the code, and the imports between them.

The place and the purpose of a room are written below; the arrows come from the imports. An arrow
that others already imply is left out. One that leads up, against the order of the rooms, is dashed.
"""  # noqa: INP001 - a program beside the packages, not one of them

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

import jobs

ROOT = Path(jobs.__file__).parents[1]
PACKAGES = ("api", "jobs", "workers")

BOX = 176
HEIGHT = 84
GAP = 44
PITCH = 132
TOP = 92
PAD = 20
LANE = 5
"""Between two arrows that run side by side in a gutter."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """A box of the picture. ``column`` may lie halfway between two."""

    name: str
    lane: str
    row: int
    column: float
    purpose: str


ROOMS = (
    Room(name="api.cli", lane="api", row=0, column=0, purpose="the command line"),
    Room(name="api.client", lane="api", row=1, column=0, purpose="the Python client"),
    Room(name="api.server", lane="api", row=2, column=0, purpose="routes, schemas, uploads"),
    Room(name="api.stack", lane="api", row=3, column=0, purpose="nightshift up"),
    Room(name="jobs.doctor", lane="jobs", row=0, column=0, purpose="checks of an installation"),
    Room(name="jobs.monitoring", lane="jobs", row=0, column=1, purpose="what Prometheus reads"),
    Room(name="jobs.purger", lane="jobs", row=1, column=0.5, purpose="fetch models, delete data"),
    Room(name="jobs.results", lane="jobs", row=2, column=0, purpose="parts, outputs, proof"),
    Room(name="jobs.corpora", lane="jobs", row=3, column=0, purpose="readers, one a format"),
    Room(name="jobs.ledger", lane="jobs", row=2, column=1, purpose="the one writer"),
    Room(name="jobs.queries", lane="jobs", row=3, column=1, purpose="the one reader"),
    Room(name="jobs.lookups", lane="jobs", row=4, column=1, purpose="what those two share"),
    Room(name="jobs.schedules", lane="jobs", row=4, column=0, purpose="when and what fires"),
    Room(name="jobs.webhooks", lane="jobs", row=5, column=0, purpose="what is sent, where to"),
    Room(name="jobs.tables", lane="jobs", row=5, column=1, purpose="tables of Postgres"),
    Room(name="jobs.kinds", lane="jobs", row=6, column=0, purpose="one spec a kind"),
    Room(name="jobs.models", lane="jobs", row=6, column=1, purpose="folders, references"),
    Room(name="jobs.decisions", lane="jobs", row=7, column=0.5, purpose="pure functions"),
    Room(name="jobs", lane="jobs", row=8, column=0.5, purpose="settings, states, errors, store"),
    Room(name="workers.tasks", lane="workers", row=0, column=0.5, purpose="tasks and processes"),
    Room(name="workers.control", lane="workers", row=1, column=0, purpose="leads and dispatches"),
    Room(name="workers.bulk", lane="workers", row=1, column=1, purpose="plan, chunk, finalize"),
    Room(name="workers.gang", lane="workers", row=2, column=0, purpose="the agent of a host"),
    Room(name="workers.flower", lane="workers", row=2, column=1, purpose="Flower, with our tabs"),
    Room(name="workers.inference", lane="workers", row=3, column=1, purpose="the engine"),
    Room(name="workers.training", lane="workers", row=3, column=0, purpose="the program of a rank"),
    Room(name="workers", lane="workers", row=4, column=0, purpose="context, leases, devices"),
    Room(
        name="workers.broker", lane="workers", row=5, column=0, purpose="messages, read and signed"
    ),
    Room(name="workers.architectures", lane="workers", row=4, column=1, purpose="small models"),
)
TOPS = {
    "jobs.purger": ("jobs.artefacts", "jobs.backups", "jobs.purger"),
    "workers.tasks": ("workers.tasks", "workers.processes"),
}
"""Modules that use the other rooms; those of one package share a box above them."""

LANES = {"api": "how people reach it", "jobs": "what a job is", "workers": "how work is done"}
LEFT = {"api": 34.0, "jobs": 316.0, "workers": 796.0}
WIDE = {"api": BOX, "jobs": 2 * BOX + GAP, "workers": 2 * BOX + GAP}
GUTTER = {"api": BOX + 20.0, "jobs": BOX + GAP / 2, "workers": BOX + GAP / 2}
"""Where arrows run that pass a row, from the left of their lane."""

TINTS = {
    "api": ("#eef4fb", "#2f6f9f"),
    "jobs": ("#f1f6ec", "#4f7a28"),
    "workers": ("#fbf3ea", "#a0622d"),
}
INKS = {lane: ink for lane, (_, ink) in TINTS.items()} | {"up": "#c23b3b"}

LEGEND = (
    "An arrow is an import between rooms of one package. One that others imply is left out.",
    "A dashed arrow leads up, against the order of the rooms.",
    "api and workers never import each other. Green in a box: what it imports from jobs/.",
)
BOTTOM = TOP + PITCH * max(room.row for room in ROOMS) + HEIGHT + 30
PICTURE = (1226, BOTTOM + 80)


def picture() -> str:
    """The SVG. Raises ``SystemExit`` for a package that has no place here."""
    imports = _imports()
    by_name = {room.name: room for room in ROOMS}
    inside = {
        (source, target)
        for source, targets in imports.items()
        for target in targets
        if by_name[source].lane == by_name[target].lane
    }
    parts = [
        *(_lane(lane) for lane in LANES),
        *_arrows(sorted(_shown(inside, by_name)), by_name),
        *(_room(room, imports[room.name]) for room in ROOMS),
        _between("api", "jobs"),
        _between("workers", "jobs"),
        _legend(),
    ]
    width, height = PICTURE
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="DejaVu Sans, Helvetica, Arial, sans-serif">'
    )
    title = "<title>The rooms of Nightshift and the imports between them</title>"
    ground = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, title, _heads(), ground, *parts, "</svg>", ""])


def _imports() -> dict[str, set[str]]:
    """The rooms that each room imports."""
    found: dict[str, set[str]] = {room.name: set() for room in ROOMS}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.stem == "__main__":  # a command line: it may use every room
                continue
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            source = _room_of(module.removesuffix(".__init__"))
            for name in _imported(path):
                target = _room_of(name)
                if source is not None and target is not None and source != target:
                    found[source].add(target)
    return found


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _room_of(name: str) -> str | None:
    """The room of a module or of a name in it; ``None`` outside of the packages."""
    parts = name.split(".")
    if parts[0] not in PACKAGES or len(parts) == 1 or parts[1] in {"migrations", "__init__"}:
        return None
    own = ".".join(parts[:2])
    for room, modules in TOPS.items():
        if own in modules:
            return room
    if not any(
        path.stem not in {"__init__", "__main__"}
        for path in (ROOT / parts[0] / parts[1]).rglob("*.py")
    ):  # a module, or a package that is one module with a command line
        return parts[0] if parts[0] != "api" else None
    if own not in {room.name for room in ROOMS}:
        raise SystemExit(f"{own} must have a place in ROOMS of {Path(__file__).name}")
    return own


def _shown(edges: set[tuple[str, str]], rooms: dict[str, Room]) -> set[tuple[str, str]]:
    """The edges without those that lead down and follow from two others that lead down."""
    down = {(a, b) for a, b in edges if rooms[a].row < rooms[b].row}
    reach = _closure(down)
    implied = {(a, c) for a, c in down if any((a, b) in down and (b, c) in reach for b in rooms)}
    return edges - implied


def _closure(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    reach = set(edges)
    while more := {(a, d) for a, b in reach for c, d in edges if b == c} - reach:
        reach |= more
    return reach


def _corner(room: Room) -> tuple[float, float]:
    return LEFT[room.lane] + room.column * (BOX + GAP), TOP + room.row * PITCH


def _text(x: float, y: float, text: str, *, size: int, ink: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}"{weight} fill="{ink}">{escape(text)}</text>'
    )


def _lane(lane: str) -> str:
    fill, ink = TINTS[lane]
    x, width = LEFT[lane] - PAD, WIDE[lane] + 2 * PAD
    ground = (
        f'<rect x="{x:g}" y="20" width="{width}" height="{BOTTOM - 20}" rx="10" fill="{fill}"/>'
    )
    name = _text(LEFT[lane], 50, f"{lane}/", size=17, ink=ink, bold=True)
    return "\n".join([ground, name, _text(LEFT[lane], 70, LANES[lane], size=12, ink=ink)])


def _room(room: Room, imports: set[str]) -> str:
    _, ink = TINTS[room.lane]
    x, y = _corner(room)
    outside = sorted(
        name.partition(".")[2] or "jobs/*.py"
        for name in imports
        if room.lane != "jobs" and name.split(".")[0] == "jobs"
    )
    box = f'x="{x:g}" y="{y:g}" width="{BOX}" height="{HEIGHT}" rx="6"'
    return "\n".join(
        [
            f'<rect {box} fill="#ffffff" stroke="{ink}"/>',
            _text(x + 10, y + 20, _title(room.name), size=12, ink=ink, bold=True),
            _text(x + 10, y + 37, room.purpose, size=11, ink="#333333"),
            *(
                _text(x + 10, y + 53 + 12 * place, line, size=9, ink=INKS["jobs"])
                for place, line in enumerate(_wrapped(outside))
            ),
        ]
    )


def _title(name: str) -> str:
    if name in TOPS:
        return ", ".join(f"{module.partition('.')[2]}.py" for module in TOPS[name])
    return f"{name}/*.py" if "." not in name else f"{name.partition('.')[2]}/"


def _wrapped(names: list[str], *, width: int = 34) -> list[str]:
    lines = [""]
    for name in names:
        if lines[-1] and len(lines[-1]) + len(name) + 2 > width:
            lines.append("")
        lines[-1] += f", {name}" if lines[-1] else name
    return [line for line in lines if line]


def _arrows(edges: list[tuple[str, str]], rooms: dict[str, Room]) -> Iterator[str]:
    """Each room's arrows leave and arrive side by side, and those that pass a row do so in turn."""
    leaving: Counter[tuple[str, bool]] = Counter()
    arriving: Counter[tuple[str, bool]] = Counter()
    passing: Counter[str] = Counter()
    for a, b in edges:
        source, target = rooms[a], rooms[b]
        up = source.row > target.row
        if source.row == target.row:
            yield _sideways(source, target)
            continue
        x1 = _port(source, leaving[a, up], up=up)
        x2 = _port(target, arriving[b, up], up=up)
        leaving[a, up] += 1
        arriving[b, up] += 1
        y1 = _corner(source)[1] + (0 if up else HEIGHT)
        y2 = _corner(target)[1] + (HEIGHT if up else 0)
        style = _stroke(source.lane if not up else "up")
        if abs(source.row - target.row) == 1:
            yield f'<path d="M {x1:g} {y1:g} {_bend(x1, y1, x2, y2)}" {style}/>'
            continue
        gutter = LEFT[source.lane] + GUTTER[source.lane] + LANE * (passing[source.lane] - 2)
        passing[source.lane] += 1
        step = HEIGHT - PITCH if up else PITCH - HEIGHT
        there = _bend(x1, y1, gutter, y1 + step)
        here = _bend(gutter, y2 - step, x2, y2)
        yield f'<path d="M {x1:g} {y1:g} {there} L {gutter:g} {y2 - step:g} {here}" {style}/>'


def _port(room: Room, place: int, *, up: bool) -> float:
    """Arrows that lead down use the left of a side, those that lead up its right."""
    x = _corner(room)[0]
    return x + BOX - 22 - 14 * place if up else x + 40 + 14 * place


def _sideways(source: Room, target: Room) -> str:
    (ax, y), (bx, _) = _corner(source), _corner(target)
    right = bx > ax
    x1, x2 = (ax + BOX, bx) if right else (ax, bx + BOX)
    y += 26 if right else 50
    return f'<path d="M {x1:g} {y:g} L {x2:g} {y:g}" {_stroke(source.lane)}/>'


def _bend(x1: float, y1: float, x2: float, y2: float) -> str:
    middle = (y1 + y2) / 2
    return f"C {x1:g} {middle:g} {x2:g} {middle:g} {x2:g} {y2:g}"


def _stroke(kind: str) -> str:
    dash = ' stroke-dasharray="5 4"' if kind == "up" else ""
    return f'fill="none" stroke="{INKS[kind]}" stroke-width="1.4"{dash} marker-end="url(#{kind})"'


def _heads() -> str:
    heads = "".join(
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
        f'markerHeight="8" orient="auto"><path d="M 0 0 L 10 5 L 0 10 z" fill="{ink}"/></marker>'
        for name, ink in INKS.items()
    )
    return f"<defs>{heads}</defs>"


def _between(source: str, target: str) -> str:
    """The thick arrow from one lane to another, at its head."""
    _, ink = TINTS[source]
    to_right = LEFT[source] < LEFT[target]
    start = LEFT[source] + WIDE[source] + PAD if to_right else LEFT[source] - PAD
    end = LEFT[target] - PAD if to_right else LEFT[target] + WIDE[target] + PAD
    return (
        f'<path d="M {start:g} 48 L {end - (4 if to_right else -4):g} 48" fill="none" '
        f'stroke="{ink}" stroke-width="3" marker-end="url(#{source})"/>'
    )


def _legend() -> str:
    return "\n".join(
        _text(14, BOTTOM + 30 + 20 * place, line, size=12, ink="#333333")
        for place, line in enumerate(LEGEND)
    )
