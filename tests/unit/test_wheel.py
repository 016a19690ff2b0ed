"""The wheel: what a person has who installed it, and has no clone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

import pytest

from connector import __version__
from connector.settings import examples
from connector.settings.schema import schema

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
SEVERAL = """
import contextlib, io, json, sys
import connector
from connector.commands.cli import main
printed = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["connector", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main()
    printed.append(out.getvalue())
print(json.dumps([connector.__file__, printed]))
"""
"""What several commands print, for the price of one start."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a virtual environment with the wheel, which sees the dependencies of this one, and not its clone."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True)
    # What .pth files in a folder say holds only where the folder is a site of its own: the editable install stays away.
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(sorted(paths)))
    return folder / "bin"


def run(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("CONNECTOR_", "PYTHON"))}
    program, *arguments = command
    return subprocess.run(
        [installed / program, *arguments], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )


def test_the_wheel_holds_the_package_the_reference_and_the_examples_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as opened:
        held = set(opened.namelist())
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "connector").rglob("*.py")} | {"connector/py.typed"}
    config = {f"connector/{path.relative_to(ROOT)}" for path in CONFIG.rglob("*.yaml")}
    assert {name for name in held if ".dist-info/" not in name} == package | config
    assert not [name for name in held if "test" in name]
    assert len(config) > 3


def test_the_wheel_says_its_name_its_version_and_its_python(wheel: Path) -> None:
    with ZipFile(wheel) as opened:
        (name,) = [name for name in opened.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_string(opened.read(name).decode())
    assert metadata["Name"] == "sagemaker-kafka-connector"
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"


def test_what_was_installed_answers_without_a_clone(installed: Path, tmp_path: Path) -> None:
    reference = run(installed, tmp_path, "connector", "config")
    assert (reference.stdout, reference.stderr) == ((CONFIG / "connector.yaml").read_text(encoding="utf-8"), "")
    commands = [["--version"], ["config", "--schema"], ["config", "--example"]]
    commands += [["config", "--example", name] for name in examples.names()]
    answered = run(installed, tmp_path, "python", "-c", SEVERAL, json.dumps(commands))
    assert answered.stderr == ""
    where, (version, as_schema, listed, *printed) = json.loads(answered.stdout)
    assert Path(where).is_relative_to(installed.parent)
    assert version.split()[-1] == __version__
    assert json.loads(as_schema) == schema()
    assert [line.split()[0] for line in listed.splitlines()] == examples.names()
    assert printed == [examples.text(name) for name in examples.names()]
    assert not list(tmp_path.iterdir())
