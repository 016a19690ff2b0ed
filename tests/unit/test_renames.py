"""Renames: a setting's old name is refused with the name that it has, in a file and in the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from connector.errors import SettingsError
from connector.settings import load, renames
from connector.settings.keys import fields
from connector.settings.renames import RENAMES, Rename
from tests.unit.needed import NEEDED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TABLE = {
    "batch.max_rows": Rename("batch.max_events", "0.2"),
    "batches": Rename("batch", "0.3"),
    "endpoint.model": Rename("endpoint.target_model", "0.3"),
    "pages": Rename("web", "0.4"),
    "pages.style": Rename("log.format", "0.4"),
    "limits.calls": Rename("concurrency.max_in_flight", "0.5"),
    "limits.bytes": Rename("buffer.max_bytes", "0.5"),
}


@pytest.fixture
def _renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renames, "RENAMES", TABLE)


def wrong(table: Mapping[str, Rename]) -> list[str]:
    """The old names that a key has, and those whose new name none has."""
    known = {".".join(path) for path in fields()}
    return [old for old, rename in table.items() if old in known or rename.key not in known]


def refused(path: Path | None, environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(path, NEEDED | environ)
    return str(caught.value).splitlines()


def test_every_new_name_exists_and_no_old_name_does() -> None:
    assert wrong(RENAMES) == []
    assert wrong(TABLE) == []
    assert wrong({"batch.max_events": Rename("batch.max_bytes", "9")}) == ["batch.max_events"]
    assert wrong({"batch.max_rows": Rename("batch.max_lines", "9")}) == ["batch.max_rows"]


@pytest.mark.usefixtures("_renamed")
@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("batch: {max_rows: 5}", ["batch.max_rows: is called batch.max_events since 0.2; rename it"]),
        ("endpoint: {model: {header: m}}", ["endpoint.model: is called endpoint.target_model since 0.3; rename it"]),
        ("batches: {linger: 5ms}", ["batches: is called batch since 0.3; rename it"]),
        ("batches:", ["batches: is called batch since 0.3; rename it"]),
        (
            "batches: {max_rows: 5, linger: 5ms}",
            [
                "batches: is called batch since 0.3; rename it",
                "batches.max_rows: is called batch.max_events since 0.2; rename it",
            ],
        ),
        (
            "pages: {port: 80, style: text}",
            [
                "pages: is called web since 0.4; rename it",
                "pages.style: is called log.format since 0.4; rename it",
            ],
        ),
        (
            "limits: {calls: 8, bytes: 1GiB, buffers: 1}",
            [
                "limits.calls: is called concurrency.max_in_flight since 0.5; rename it",
                "limits.bytes: is called buffer.max_bytes since 0.5; rename it",
                "limits.buffers: there is no such setting; `connector config` lists every setting",
            ],
        ),
    ],
)
def test_an_old_name_in_a_file_is_refused_with_the_one_that_it_has(
    tmp_path: Path, text: str, sentences: list[str]
) -> None:
    file = tmp_path / "connector.yaml"
    file.write_text(text)
    assert refused(file, {}) == sentences


@pytest.mark.usefixtures("_renamed")
@pytest.mark.parametrize(
    ("old", "called", "since"),
    [
        ("CONNECTOR_BATCH__MAX_ROWS", "CONNECTOR_BATCH__MAX_EVENTS", "0.2"),
        ("CONNECTOR_BATCHES__LINGER", "CONNECTOR_BATCH__LINGER", "0.3"),
        ("CONNECTOR_BATCHES__MAX_ROWS", "CONNECTOR_BATCH__MAX_EVENTS", "0.2"),
        ("CONNECTOR_ENDPOINT__MODEL", "CONNECTOR_ENDPOINT__TARGET_MODEL", "0.3"),
        ("CONNECTOR_ENDPOINT__MODEL__HEADER", "CONNECTOR_ENDPOINT__TARGET_MODEL__HEADER", "0.3"),
        ("CONNECTOR_PAGES__PORT", "CONNECTOR_WEB__PORT", "0.4"),
        ("CONNECTOR_PAGES__STYLE", "CONNECTOR_LOG__FORMAT", "0.4"),
        ("CONNECTOR_LIMITS__CALLS", "CONNECTOR_CONCURRENCY__MAX_IN_FLIGHT", "0.5"),
    ],
)
def test_an_old_name_in_the_environment_is_refused_with_the_one_that_it_has(old: str, called: str, since: str) -> None:
    assert refused(None, {old: "5"}) == [f"{old}: is called {called} since {since}; rename it"]


@pytest.mark.usefixtures("_renamed")
@pytest.mark.parametrize("name", ["CONNECTOR_BATCHES", "CONNECTOR_BATCHES__LINGRE", "CONNECTOR_LIMITS__BUFFERS"])
def test_a_variable_that_no_rename_explains_is_refused_as_any_other(name: str) -> None:
    assert refused(None, {name: "5"})[0].startswith(f"{name}: is no setting's variable; ")


@pytest.mark.usefixtures("_renamed")
def test_a_secret_under_an_old_name_is_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "connector.yaml"
    file.write_text("batches: {max_rows: m4rked-p4ssword}\npages: m4rked-p4ssword\n")
    assert "m4rked" not in "".join(refused(file, {"CONNECTOR_BATCH__LINGER": "5ms"}))
