"""The contracts of pyproject.toml about imports: each is there to be broken, and none forgets a dependency."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS = {contract["id"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
WRONG = [
    pytest.param("rooms", "settings/units.py", "from connector.worker.watchdog import Watchdog", id="from above"),
    pytest.param("rooms", "kafka/topics.py", "from connector.endpoint.invoker import Invoker", id="from beside"),
    pytest.param("core", "core/epochs/lease.py", "from connector.core.event import Event", id="from later on the way"),
    pytest.param("circles", "core/epochs/lease.py", "from connector.core.epochs.ledger import Ledger", id="a new file"),
    pytest.param("pure", "core/epochs/lease.py", "import time", id="a clock"),
    pytest.param("pure", "core/calls/outcome.py", "import aiokafka", id="a client"),
    pytest.param("clients", "worker/watchdog.py", "from aiokafka import TopicPartition", id="a client's words"),
    pytest.param("protocols", "kafka/topic.py", "from aiokafka import TopicPartition", id="a client behind a protocol"),
    pytest.param("seams", "worker/health.py", "from connector.kafka.source.epochs import Epochs", id="its insides"),
]
ALSO = {"circles": ("core/epochs/ledger.py", "from connector.core.epochs.lease import Lease")}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "connector", tmp_path / "connector", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_is_kept_and_has_an_import_that_would_break_it() -> None:
    kept = lint(ROOT)
    assert kept.returncode == 0, kept.stdout
    assert {case.values[0] for case in WRONG} == CONTRACTS.keys()


@pytest.mark.parametrize(("contract", "file", "wrong"), WRONG)
@pytest.mark.parametrize("for_types_only", [False, True], ids=["imported", "for type checking"])
def test_one_wrong_import_breaks_its_contract(
    scratch: Path, contract: str, file: str, wrong: str, for_types_only: bool
) -> None:
    for name, line in ((file, wrong), *([ALSO[contract]] if contract in ALSO else [])):
        line = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {line}\n" if for_types_only else f"{line}\n"
        with (scratch / "connector" / name).open("a", encoding="utf-8") as source:
            source.write(line)
    broken = lint(scratch)
    assert broken.returncode == 1
    assert f"{CONTRACTS[contract]['name']} BROKEN" in broken.stdout


def test_core_may_use_no_dependency_but_orjson() -> None:
    project = PROJECT["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in ("demo", "msk") for name in project["optional-dependencies"][extra]),
    ]
    needed = {canonicalize_name(Requirement(line).name) for line in wanted} - {"orjson"}
    packages: dict[str, set[str]] = {}
    for module, distributions in packages_distributions().items():
        for distribution in distributions:
            packages.setdefault(canonicalize_name(distribution), set()).add(module)
    forbidden = set(CONTRACTS["pure"]["forbidden_modules"])
    forgotten = {name for name in needed if not packages[name] & forbidden}
    assert not forgotten
    assert {
        "asyncio",
        "time",
        "random",
        "os",
        "socket",
        "ssl",
        "threading",
        "logging",
        "pathlib",
        "subprocess",
    } <= forbidden
