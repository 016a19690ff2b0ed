"""What the package says of itself: license, versions of Python, and what it is found by."""

from __future__ import annotations

import email
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.specifiers import SpecifierSet
from trove_classifiers import classifiers

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).parents[2]
PYTHON = "Programming Language :: Python :: 3."
BUILD = "import sys; from hatchling import build; print(build.prepare_metadata_for_build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the metadata that a wheel of this tree would have."""
    folder = tmp_path_factory.mktemp("metadata")
    made = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return folder / made.stdout.strip()


@pytest.fixture(scope="module")
def metadata(built: Path) -> Message:
    return email.message_from_string((built / "METADATA").read_text(encoding="utf-8"))


def test_the_license_is_named_and_comes_along(built: Path, metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    copies = [file.read_text(encoding="utf-8") for file in built.rglob("LICENSE")]
    assert all(copy == text for copy in copies)


def test_the_package_is_found_by_what_it_does(metadata: Message) -> None:
    assert {"kafka", "sagemaker", "micro-batching"} <= set(metadata["Keywords"].split(","))
    assert metadata["Summary"]
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_every_classifier_is_one_and_every_python_that_is_named_may_be_used(metadata: Message) -> None:
    named = metadata.get_all("Classifier") or []
    assert set(named) <= set(classifiers)
    pythons = [name.removeprefix("Programming Language :: Python :: ") for name in named if name.startswith(PYTHON)]
    assert pythons
    assert all(version in SpecifierSet(metadata["Requires-Python"]) for version in pythons)
