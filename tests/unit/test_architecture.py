"""The contracts of pyproject.toml about imports: each is there to be broken, and none forgets a dependency."""

from __future__ import annotations

import re
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
    # A contract, a file, an import that it must not have, and how the contract names it.
    (
        "rooms",
        "settings/units.py",
        "from connector.worker.watchdog import Watchdog",
        "settings.units -> connector.worker",
    ),
    (
        "rooms",
        "kafka/topics.py",
        "from connector.endpoint.invoker import Invoker",
        "kafka.topics -> connector.endpoint",
    ),
    ("core", "core/epochs/lease.py", "from connector.core.event import Event", "epochs.lease -> connector.core.event"),
    ("circles", "core/routes/members.py", "from connector.core.routes.json_pointer import JsonPointer", ".members"),
    ("circles", "core/routes/json_pointer.py", "from connector.core.routes.members import RULES", ".json_pointer"),
    ("pure", "core/epochs/lease.py", "import time", "epochs.lease -> time"),
    ("pure", "core/calls/outcome.py", "import aiokafka", "calls.outcome -> aiokafka"),
    ("clients", "worker/watchdog.py", "from aiokafka import TopicPartition", "worker.watchdog -> aiokafka"),
    ("protocols", "kafka/topic.py", "from aiokafka import TopicPartition", "kafka.topic -> aiokafka"),
    (
        "seams",
        "worker/health.py",
        "from connector.kafka.source.epochs import Epochs",
        "worker.health -> connector.kafka.source.epochs",
    ),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", params=[False, True], ids=["imported", "for type checking"])
def broken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each contract says of a copy with all of the wrong imports, as they are or for type checking only."""
    scratch = tmp_path_factory.mktemp("scratch")
    shutil.copytree(ROOT / "connector", scratch / "connector", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", scratch)
    for _, file, wrong, _ in WRONG:
        line = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {wrong}\n" if request.param else f"{wrong}\n"
        with (scratch / "connector" / file).open("a", encoding="utf-8") as source:
            source.write(line)
    found = lint(scratch)
    assert found.returncode == 1
    _, _, said = found.stdout.partition("Broken contracts")
    names = {contract["name"]: name for name, contract in CONTRACTS.items()}
    title = re.compile(f"^({'|'.join(map(re.escape, names))})\n-+\n", re.MULTILINE)
    _, *parts = title.split(said)
    return {names[name]: part for name, part in zip(parts[::2], parts[1::2], strict=True)}


def test_every_contract_is_kept_and_has_an_import_that_would_break_it() -> None:
    kept = lint(ROOT)
    assert kept.returncode == 0, kept.stdout
    assert {contract for contract, *_ in WRONG} == CONTRACTS.keys()


@pytest.mark.parametrize(("contract", "file", "wrong", "named"), WRONG)
def test_one_wrong_import_breaks_its_contract(
    broken: dict[str, str], contract: str, file: str, wrong: str, named: str
) -> None:
    assert named in broken[contract]


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
