"""Makes minoots/rpc/pb from the .proto files beside this one; with --check, says instead whether it is up to date."""

import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
REPOSITORY = PROTO.parent
PACKAGE = "minoots/rpc/pb"
MARK = "_pb2"


def generate(target: Path) -> None:
    """Write the generated modules below `target`, as `minoots/rpc/pb/…`.

    To protoc the files lie in that folder, so what it generates imports by the package's full name.
    """
    scripts = Path(sys.executable).parent
    code = protoc.main(
        [
            "protoc",
            f"-I{PACKAGE}={PROTO}",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
            *(f"--{kind}_out={target}" for kind in ("python", "grpc_python")),
            *(f"--{kind}_out=quiet:{target}" for kind in ("mypy", "mypy_grpc")),
            *(f"{PACKAGE}/{path.name}" for path in sorted(PROTO.glob("*.proto"))),
        ]
    )
    if code != 0:
        sys.exit(code)


def generated(folder: Path) -> dict[str, str]:
    """The generated modules in `folder`, by name."""
    return {path.name: path.read_text() for path in folder.glob(f"*{MARK}*.py*")}


def main() -> None:
    committed = REPOSITORY / PACKAGE
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh, present = generated(Path(scratch) / PACKAGE), generated(committed)
    if "--check" in sys.argv[1:]:
        stale = sorted(name for name in fresh.keys() | present.keys() if fresh.get(name) != present.get(name))
        if stale:
            sys.exit(f"{PACKAGE} is not what proto/ makes ({', '.join(stale)}); run `make proto`")
        return
    for name in present.keys() - fresh.keys():
        (committed / name).unlink()
    for name, text in fresh.items():
        (committed / name).write_text(text)


if __name__ == "__main__":
    main()
