"""A body format is one file: in a copy of the project, a file and its test are added, and nothing else is touched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTEST = ["-m", "pytest", "--quiet", "-p", "no:cacheprovider", "--basetemp=temporary"]


def python(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=copy, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("project")
    for folder in ("connector", "tests", "config"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    # Its test stands among those of the formats, and is collected where the format is registered.
    shutil.copy(ROOT / "tests/unit/formats/piped.py", copy / "connector/core/formats/piped.py")
    written = python(copy, "-m", "connector", "config")
    assert not written.returncode, written.stderr
    (copy / "config/connector.yaml").write_text(written.stdout, encoding="utf-8")
    return copy


def test_a_format_with_options_is_added_by_its_file_and_its_test(copy: Path) -> None:
    names = ("formats/test_piped", "test_body_formats", "test_router", "test_settings", "test_schema")
    tests = [f"tests/unit/{name}.py" for name in names]
    done = python(copy, *PYTEST, "-rp", "-k", "piped or reference", *tests)
    assert done.returncode == 0, done.stdout
    assert all(f"PASSED {test}::" in done.stdout for test in tests)


def test_a_format_without_a_test_of_its_own_fails_the_claims_of_every_format(copy: Path, tmp_path: Path) -> None:
    without = shutil.copytree(copy, tmp_path / "project", ignore=shutil.ignore_patterns("test_piped.py"))
    done = python(without, *PYTEST, "--collect-only", "tests/unit/test_body_formats.py")
    assert done.returncode
    assert "No module named 'tests.unit.formats.test_piped'" in done.stdout
