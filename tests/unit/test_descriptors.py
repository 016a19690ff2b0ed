"""Descriptors: how many are open of how many that may be, and when that is said."""

from __future__ import annotations

import errno
import math
import os
import resource
from pathlib import Path

import pytest

from connector.settings import parse
from connector.worker import descriptors
from connector.worker.descriptors import Descriptors


def test_the_soft_limit_becomes_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: asked.append((which, pair)))
    descriptors.raise_limit()
    assert asked == [(resource.RLIMIT_NOFILE, (4096, 4096))]


@pytest.mark.parametrize("error", [ValueError("not allowed"), OSError(errno.EPERM, "no")])
def test_a_system_that_does_not_let_us_is_no_reason_not_to_start(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(resource, "setrlimit", refuse)
    descriptors.raise_limit()


def test_what_is_open_is_counted() -> None:
    before = descriptors.count()
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    try:
        assert descriptors.count() == before + 5
    finally:
        for one in opened:
            os.close(one)


@pytest.mark.parametrize(("number", "counted"), [(errno.EMFILE, 77), (errno.ENOENT, 0)])
def test_without_a_descriptor_to_count_with_all_are_open(
    monkeypatch: pytest.MonkeyPatch, number: int, counted: int
) -> None:
    def fail(_: Path) -> list[Path]:
        raise OSError(number, "cannot")

    monkeypatch.setattr(Path, "iterdir", fail)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (77, 77))
    assert descriptors.count() == counted


def test_no_limit_is_an_infinite_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert descriptors.limit() == math.inf
    assert Descriptors().look(10**9, descriptors.limit()) is None


def test_it_is_said_once_until_there_are_plenty_again() -> None:
    own = Descriptors()
    said = [own.look(used, 100) is not None for used in (80, 81, 99, 75, 85, 70, 80, 81)]
    assert said == [False, True, False, False, False, False, False, True]


def test_the_sentence_says_how_many_of_how_many_and_what_to_do() -> None:
    sentence = Descriptors().look(1_000_000, 1_048_576) or ""
    assert sentence.startswith("1000000 of 1048576 files and connections are open, ")
    assert "LimitNOFILE" in sentence


@pytest.mark.parametrize(("most", "advised"), [(127, True), (128, False), (math.inf, False)])
def test_calls_that_cannot_all_be_in_flight_need_advice(most: float, advised: bool) -> None:
    assert any(descriptors.advice(parse({}), most)) is advised
