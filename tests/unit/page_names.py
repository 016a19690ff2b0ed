"""Names: what the pages for people may name between backticks and in commands, and whether it exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

from connector.commands.cli import connector
from connector.commands.reference import shown_name
from connector.core.answers.headers import HEADERS
from connector.core.calls.outcome import Kind
from connector.core.reason import Reason
from connector.errors import SettingsError
from connector.settings import Settings, parse
from connector.settings.keys import fields
from connector.settings.load import variables
from connector.telemetry.log_events import FIELDS, LogEvent
from connector.telemetry.metrics import LABELS, Metrics
from connector.telemetry.problems import Problem
from tests.chaos.named import NAMED, PROOFS
from tests.unit.command_tree import commands, subcommand
from tests.unit.source_index import SourceIndex

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_FILE = re.compile(r"(?:[\w.-]+/)*(?:[\w.-]+\.(?:py|md|toml|lock|yaml|json)|[\w.-]+/|Makefile|LICENSE)(?:::(\w+))?")
_ROOMS = ("", "connector", "tests")
"""Where the path of a file begins, as a page writes it."""
_HISTOGRAM = ("_bucket", "_sum", "_count")
_MAY_RUN = frozenset({".", "cd", "curl", "export", "git", "pip", "python3"})
"""Commands of others that a page may tell to type."""


class Names:
    """Everything that exists by a name; `foreign` are the names of others, which nothing here can look up."""

    def __init__(self, root: Path, project: dict[str, object], foreign: Collection[str]) -> None:
        self._root = root
        self.source = SourceIndex(root, ("connector", "tests"))
        metrics = Metrics(lambda: 0.0).declared
        self._metrics = {shown_name(one) for one in metrics}
        self._metrics |= {one.name + end for one in metrics if one.kind == "histogram" for end in _HISTOGRAM}
        self._makefile = (root / "Makefile").read_text(encoding="utf-8")
        extras = project["optional-dependencies"]
        assert isinstance(extras, dict)
        self._extras = set(extras)
        self._keys = {".".join(path) for path in fields()}
        pages = (root / "connector/worker/pages.py").read_text(encoding="utf-8")
        self._words = {
            *LogEvent,
            *Reason,
            *Problem,
            *(kind.value for kind in Kind),
            *(header.name for header in HEADERS),
            *_values(Settings().model_dump(mode="json")),
            *_choices((root / "config/connector.yaml").read_text(encoding="utf-8")),
            *LABELS,
            *FIELDS,
            *NAMED,
            *PROOFS,
            *self._extras,
            *re.findall(r'"(/[\w/]+)"', pages),
        }
        self.foreign = set(foreign)
        self.met: set[str] = set()
        """The foreign names that were asked for."""

    def problem(self, name: str) -> str | None:
        """What does not exist of what stands between two backticks; None when all of it does."""
        for pattern, check in (
            (r"connector( .*)?", self._command),
            (r"make .*", self._make),
            (r"(\.venv/bin/)?python -m .*", self._module),
            (r"--[a-z].*", self._option),
            (r"connector_.*", self._metric),
            (r"CONNECTOR_.*", self._variable),
            (_FILE.pattern, self._file),
            (r"[a-z_]+(\.[a-z_]+)+(: .*)?", self._dotted),
        ):
            if re.fullmatch(pattern, name):
                return check(name)
        if name in self._words or self.source.defines(name):
            return None
        if name in self.foreign:
            self.met.add(name)
            return None
        return f"{name}: nothing has this name"

    def calls(self, caller: str, called: str) -> bool:
        """Whether a function calls another, or hands it on to be called."""
        return called.rpartition(".")[2] in self.source.calls.get(caller, ())

    def typed(self, line: str) -> Iterator[str]:
        """What does not exist of a line that somebody is told to type."""
        for part in re.split(r" && | \| ", line.split(" > ")[0]):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                yield from filter(None, [self._assigned(words.pop(0))])
            if not words:
                continue
            program = words[0].removeprefix(".venv/bin/")
            if program == "export":
                yield from filter(None, map(self._assigned, words[1:]))
            elif program in ("connector", "make", "python"):
                yield from filter(None, [self.problem(shlex.join([program, *words[1:]]))])
            elif program not in _MAY_RUN:
                yield f"{program}: is not a command that a page may tell to type"
            for extra in re.findall(r"\[([\w,]+)\]", part):
                yield from (f"{one}: is no extra" for one in extra.split(",") if one not in self._extras)

    def setting(self, key: str) -> str | None:
        """What does not exist of a setting's key in plain text."""
        return None if key in self._keys else f"{key}: is no setting"

    def is_section(self, name: str) -> bool:
        """Whether settings begin with this word."""
        return name in self._keys and "." not in name

    def leaves(self) -> set[str]:
        """The last words of all settings' keys, and all that a setting may be."""
        return {key.rpartition(".")[2] for key in self._keys} | self._words

    def _assigned(self, words: str) -> str | None:
        name = words.split("=")[0]
        return self._variable(name) if name.startswith("CONNECTOR_") else None

    def _file(self, name: str) -> str | None:
        path, _, test = name.partition("::")
        found = [where for room in _ROOMS if (where := self._root / room / path).exists()]
        if not found:
            return f"{path}: is no file"
        if test and not re.search(rf"^(?:async )?def {test}\(", found[0].read_text(encoding="utf-8"), re.MULTILINE):
            return f"{name}: the file has no such test"
        return None

    def _metric(self, name: str) -> str | None:
        return None if name in self._metrics else f"{name}: is no metric"

    def _variable(self, name: str) -> str | None:
        name = name.split("=")[0]
        return None if name in variables() or name == "CONNECTOR_CONFIG_FILE" else f"{name}: is no setting's variable"

    def _dotted(self, name: str) -> str | None:
        key, _, value = name.partition(": ")
        section, *inner = key.split(".")
        if key not in self._keys:
            if self.is_section(section) and not self.source.defines(key):
                return f"{key}: is no setting"
            return self._elsewhere(name)
        if value:
            tree: object = yaml.safe_load(value)
            for word in reversed(inner):
                tree = {word: tree}
            try:
                parse({section: tree})
            except SettingsError as error:
                return str(error)
        return None

    def _elsewhere(self, name: str) -> str | None:
        if name in self._words or self.source.defines(name):
            return None
        if name not in self.foreign:
            return f"{name}: nothing has this name"
        self.met.add(name)
        return None

    def _command(self, line: str) -> str | None:
        command: click.Command = connector
        for word in _words(line)[1:]:
            if word.startswith("-"):
                if not any(word in (*one.opts, *one.secondary_opts) for one in _params(command)):
                    return f"{line}: {command.name} has no {word}"
            elif isinstance(command, click.Group):
                found = subcommand(command, word)
                if found is None:
                    return f"{line}: {command.name} has no {word}"
                command = found
        return None

    def _make(self, line: str) -> str | None:
        for word in _words(line)[1:]:
            name, given, _ = word.partition("=")
            pattern = rf"\$\((?:if )?\$?\(?{name}\)" if given else rf"^{re.escape(name)}:"
            if not re.search(pattern, self._makefile, re.MULTILINE):
                return f"{line}: the Makefile has no {name}"
        return None

    def _module(self, line: str) -> str | None:
        module, *options = _words(line)[2:]
        if not module.startswith(("connector", "tests")):
            return self._tests(options) if module == "pytest" else None
        base = self._root / module.replace(".", "/")
        files = [file for file in (base.with_suffix(".py"), base / "__main__.py") if file.exists()]
        if not files:
            return f"{line}: there is no module {module}"
        text = files[0].read_text(encoding="utf-8")
        for option, value in zip(options, [*options, ""][1:], strict=True):
            if option.startswith("--") and f'"{option}"' not in text:
                return f"{line}: {module} has no {option}"
            if option == "--scenario" and value not in {*NAMED, "all", "NAME"}:
                return f"{line}: there is no scenario {value}"
        return None

    def _tests(self, arguments: Sequence[str]) -> str | None:
        return next((wrong for one in arguments if "/" in one and (wrong := self._file(one))), None)

    def _option(self, text: str) -> str | None:
        option = text.split()[0]
        if any(option in param.opts for _, command in commands(connector) for param in _params(command)):
            return None
        files = [file for folder in ("chaos", "benchmarks") for file in (self._root / "tests" / folder).glob("*.py")]
        known = any(f'"{option}"' in file.read_text(encoding="utf-8") for file in files)
        return None if known else f"{option}: no command has this option"


def _words(line: str) -> list[str]:
    """The words of a command, optional ones without their brackets."""
    return line.split(" > ")[0].replace("[", "").replace("]", "").split()


def _params(command: click.Command) -> Sequence[click.Parameter]:
    return command.get_params(click.Context(command, **command.context_settings))


def _values(tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        for inner in tree.values():
            yield from _values(inner)
    elif isinstance(tree, str):
        yield tree


def _choices(reference: str) -> Iterator[str]:
    """What settings can be one of, as the reference says it."""
    comments = " ".join(re.sub(r"^ *# ?", "", line) for line in reference.splitlines())
    for choices in re.findall(r"One of ([\w, -]+)\.", comments):
        yield from choices.split(", ")
