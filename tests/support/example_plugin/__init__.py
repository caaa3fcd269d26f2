"""The example of docs/extending.md, and how it is installed for a test: as pip would, with a dist-info."""

import shutil
from pathlib import Path

ENTRY_POINTS = """\
[minoots.agent_adapters]
acme.file = acme_minoots:FileAdapter
acme.broken = acme_broken:Adapter
nodot = acme_minoots:FileAdapter

[minoots.action_kinds]
acme.note = acme_minoots:NoteKind
acme.missing = acme_minoots:Nothing
"""


def install(folder: Path) -> Path:
    """Make `folder` a place for PYTHONPATH that has the example in it."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("acme_minoots.py"), folder)
    (folder / "acme_broken.py").write_text("raise ImportError('a library of ours is missing')\n")
    information = folder / "acme_minoots-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-minoots\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder
