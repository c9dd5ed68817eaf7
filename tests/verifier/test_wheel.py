"""What a regulator installs: the wheel, alone."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.app.exports import make, region_of, small_book, trust_file

REPOSITORY = Path(__file__).parents[2]

# Imports the program from the wheel and prints every module that then is neither Python's nor the wheel's.
FOREIGN_IMPORTS = """
import sys
sys.path.insert(0, sys.argv[1])
import verifier.cli, verifier.log, verifier.merkle, verifier.source
assert verifier.__file__.startswith(sys.argv[1]), verifier.__file__
names = {name.partition(".")[0] for name in sys.modules}
print(sorted(names - sys.stdlib_module_names - {"__main__", "verifier"}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    uv = shutil.which("uv") or os.environ.get("UV") or shutil.which(REPOSITORY / ".tools" / "uv" / "bin" / "uv")
    if uv is not None:
        command = [uv, "build", "--package", "countroom-verifier", "--wheel", "--out-dir", str(target)]
        directory = REPOSITORY
    elif importlib.util.find_spec("hatchling") is not None:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
        directory = REPOSITORY / "verifier"
    else:
        pytest.skip("neither uv (on the PATH, in $UV or in .tools) nor hatchling is there to build the wheel")
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = target.glob("countroom_verifier-*.whl")
    return built


def test_the_wheel_holds_the_verifier_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = {Path(name).name: name for name in archive.namelist() if ".dist-info/" in name}
        scripts = archive.read(metadata["entry_points.txt"]).decode()
    modules = {f"verifier/{path.name}" for path in (REPOSITORY / "verifier").glob("*.py")}
    assert names == modules | {"verifier/py.typed"}
    assert "countroom-verifier = verifier.cli:main" in scripts


def test_the_wheel_runs_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    # Isolated, without site packages, without environment, and away from the checkout.
    command = [sys.executable, "-I", "-S", "-c", FOREIGN_IMPORTS, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


ITS_OWN = {"cffi", "sitecustomize"}
SIGNATURES_IMPORT = FOREIGN_IMPORTS.replace("import verifier.cli, ", "import verifier.proof, verifier.tiles, ")


def test_signatures_need_cryptography_and_nothing_else(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    command = [sys.executable, "-I", "-c", SIGNATURES_IMPORT, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
    # Underscores: the finders of this checkout's editable installation, and the compiled part of cffi. Some distributions' Python
    # brings a sitecustomize, which it imports by itself.
    assert set(ast.literal_eval(done.stdout)) >= {"cryptography"}
    foreign = {name for name in ast.literal_eval(done.stdout) if not name.startswith(("_", "cryptography"))}
    assert foreign <= ITS_OWN, foreign


# Verifies an export from the wheel, and prints every module that then is neither Python's nor the wheel's.
VERIFIES = FOREIGN_IMPORTS.replace(
    "names = ", "status = verifier.cli.main(sys.argv[2:])\nassert status == 0, status\nnames = "
)


def test_an_export_of_a_player_verifies_where_only_the_wheel_is(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "wheel")
    book = small_book()
    with region_of(book) as region:
        make(region.url, tmp_path / "usb", player=book.players[1])
    command = [sys.executable, "-I", "-c", VERIFIES, str(tmp_path / "wheel"), "verify", "usb", "--trust"]
    done = subprocess.run(
        [*command, str(trust_file(tmp_path))], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    said, foreign = done.stdout.splitlines()
    assert "entries chosen from positions 1 to" in said
    assert "intact; 1 head, 1 signature" in said
    names = {name for name in ast.literal_eval(foreign) if not name.startswith(("_", "cryptography"))}
    assert names <= ITS_OWN, names
