"""The pages for people name files, functions, settings, metrics, commands and scenarios that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from connector.settings import parse
from tests.chaos.named import NAMED
from tests.unit.page_names import Names

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REFERENCE = "docs/reference.md"
"""It is made of the declarations, and its examples are of nothing here."""
MARKDOWN = sorted(str(page.relative_to(ROOT)) for folder in (ROOT, ROOT / "docs") for page in folder.glob("*.md"))
YAML = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "config").rglob("*.yaml"))

FOREIGN = {
    # Kafka and its clients
    "acks=all",
    "auto_offset_reset=none",
    "getmany",
    "isolation.level=read_committed",
    "max.poll.interval",
    "read_committed",
    "read_uncommitted",
    "topic/partition/offset",
    "{group}/{input topic}/",
    "{group}/{topic}/{partition}",
    # AWS
    "InferenceId",
    "InvokeEndpoint",
    "X-Amzn-SageMaker-Inference-Id",
    "sagemaker:InvokeEndpoint",
    # Python, Faust, the shell
    "PATH",
    "await",
    "enable_kafka = False",
    "git log",
    "ls connector",
    "ls connector/core",
    "venv",
    # what is no name
    "***",
    "MAJOR.MINOR.PATCH",
    "\\xff",
    "features",
    "split(model(join(payloads)))",
}
"""Names of others, and what is between backticks without being a name."""

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!~)`([^`\n]+)`")
GONE = re.compile(r"~~`([^`\n]+)`~~")
"""A name that is said to be gone, in the changelog."""
CALLS = re.compile(r"`([\w.]+)` → `([\w.]+)`")
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
DOTTED = re.compile(r"(?<![\w./`-])([a-z_]+)\.([a-z_]+(?:\.[a-z_]+)*)(?![\w(/-])")


@pytest.fixture(scope="module")
def names() -> Names:
    return Names(ROOT, PROJECT, FOREIGN)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page: str) -> str:
    """A page without its examples; of YAML the comments."""
    text = text_of(page)
    if page.endswith(".md"):
        return FENCE.sub("", text)
    return "\n".join(line.strip().removeprefix("#") for line in text.splitlines() if line.strip().startswith("#"))


def wrong_in(prose: str, names: Names) -> list[str]:
    """What does not exist of all that a text names."""
    return [wrong for name in SPAN.findall(prose) if (wrong := names.problem(name))]


@pytest.mark.parametrize("page", [page for page in (*MARKDOWN, *YAML) if page != REFERENCE])
def test_everything_that_a_page_names_exists(names: Names, page: str) -> None:
    assert not wrong_in(prose_of(page), names)


def test_every_foreign_name_is_on_a_page_and_is_nothing_of_ours(names: Names) -> None:
    for page in (*MARKDOWN, *YAML):
        wrong_in(prose_of(page), names)
    assert names.met == FOREIGN


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("`outcome.py`", "outcome.py: is no file"),
        ("`unit/test_ledger.py::test_nothing`", "has no such test"),
        ("`Pipeline._finished`", "nothing has this name"),
        ("`ledger.committed_at`", "nothing has this name"),
        ("`reconcile`", "nothing has this name"),
        ("`connector_events`", "is no metric"),
        ("`inference-reason`", "nothing has this name"),
        ("`kafka.group`", "is no setting"),
        ("`kafka.ordering: keys`", "kafka.ordering"),
        ("`CONNECTOR_KAFKA__GROUP`", "is no setting's variable"),
        ("`position_choosen`", "nothing has this name"),
        ("`connector trace`", "has no trace"),
        ("`connector run --settings FILE`", "has no --settings"),
        ("`--settings FILE`", "no command has this option"),
        ("`make tests`", "the Makefile has no tests"),
        ("`make chaos ROUND=1`", "the Makefile has no ROUND"),
        ("`python -m connector.settings_reference`", "there is no module"),
        ("`python -m tests.chaos --scenario kill`", "there is no scenario kill"),
        ("`python -m tests.chaos --round 1`", "has no --round"),
        ("`broker_away`", "nothing has this name"),
    ],
)
def test_a_name_of_nothing_is_found(names: Names, text: str, sentence: str) -> None:
    (found,) = wrong_in(text, names)
    assert sentence in found


def test_a_call_that_is_not_made_is_found(names: Names) -> None:
    assert names.calls("Pipeline._ended", "Limiter.finish")
    assert not names.calls("Pipeline._call", "Limiter.finish")


@pytest.mark.parametrize("page", MARKDOWN)
def test_what_a_page_says_to_be_gone_is_gone(names: Names, page: str) -> None:
    for name in GONE.findall(prose_of(page)):
        assert names.problem(name), name


@pytest.mark.parametrize("page", [*MARKDOWN, *YAML])
def test_every_setting_that_a_page_names_without_backticks_exists(names: Names, page: str) -> None:
    found = [f"{section}.{key}" for section, key in DOTTED.findall(prose_of(page)) if names.is_section(section)]
    assert not [wrong for key in found if not re.fullmatch(r".*\.(py|md|yaml)", key) and (wrong := names.setting(key))]


@pytest.mark.parametrize("page", YAML)
def test_every_name_with_an_underscore_in_the_comments_of_a_configuration_is_a_setting(names: Names, page: str) -> None:
    found = re.findall(r"(?<![\w./`$-])[a-z]+(?:_[a-z0-9]+)+(?![\w./-])", SPAN.sub("", prose_of(page)))
    assert set(found) <= names.leaves()


@pytest.mark.parametrize("page", MARKDOWN)
def test_every_command_that_a_page_tells_to_type_exists(names: Names, page: str) -> None:
    lines = [
        line.strip().removeprefix("$ ")
        for _, language, block in FENCE.findall(text_of(page))
        if language == "console"
        for line in block.splitlines()
        if line.strip().startswith("$ ")
    ]
    assert not [wrong for line in lines for wrong in names.typed(line)]


@pytest.mark.parametrize("page", MARKDOWN)
def test_every_configuration_that_a_page_shows_is_one(page: str) -> None:
    for _, language, block in FENCE.findall(text_of(page)):
        if language == "yaml":
            parse(yaml.safe_load(block))


def test_every_dependency_has_its_reason() -> None:
    extras = PROJECT["optional-dependencies"].values()
    wanted = {
        re.split(r"[<>=\[]", line)[0]
        for line in (*PROJECT["dependencies"], *(one for extra in extras for one in extra))
    }
    table = text_of("docs/DESIGN.md").partition("## Dependencies")[2]
    reasons = {
        name for row in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE) for name in re.findall(r"[\w-]+", row)
    }
    assert not {name for name in wanted - {PROJECT["name"]} if not name.startswith("types-")} - reasons


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as a browser of the repository makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", MARKDOWN)
def test_every_link_within_the_repository_leads_somewhere(page: str) -> None:
    for path, anchor in LINK.findall(text_of(page)):
        if "://" not in path:
            target = (ROOT / page).parent / path if path else ROOT / page
            assert target.exists(), path
            assert not anchor or anchor[1:] in anchors(target), anchor


@pytest.mark.parametrize("page", MARKDOWN)
def test_every_arrow_from_a_function_to_another_is_a_call(names: Names, page: str) -> None:
    assert not [arrow for arrow in CALLS.findall(prose_of(page)) if not names.calls(*arrow)]


def test_every_scenario_that_the_guarantees_name_as_a_proof_exists() -> None:
    rows = [line for line in text_of("docs/guarantees.md").splitlines() if line.startswith("|")]
    proofs = [row.split("|")[-2] for row in rows]
    named = {name for proof in proofs for name in re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+|kills)`", proof)}
    assert len(named) > 10
    assert named <= set(NAMED)
