"""`python -m tests.chaos`: rounds of chaos, a seed each, and what they came to.

Without --scenario each round is a mix that its seed chooses. Exit codes: 0 all held, 1 something did not, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import shutil
import signal
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import psutil
from rich.console import Console
from rich.table import Table

from tests.chaos.broker import Brokers
from tests.chaos.checks import Kind, Problem
from tests.chaos.harness import Report, run
from tests.chaos.journal import Journal, Sum
from tests.chaos.mix import mix
from tests.chaos.named import NAMED, PROOFS
from tests.chaos.scenario import Delivery

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from tests.chaos.scenario import Scenario

_FOLDER = Path(".chaos")
_PROBLEMS_SHOWN = 5
_INTERRUPTED = 130
_PROOF_SEEDS = 4
_DELIVERIES: tuple[Delivery, ...] = get_args(Delivery)


def main() -> int:
    """Run what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="how many rounds")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the first round; each next one has one more")
    parser.add_argument("--delivery", choices=[*_DELIVERIES, "both"], default="at_least_once", help="both take turns")
    parser.add_argument("--scenario", choices=[*NAMED, "all"], help="a named scenario instead of a mix, or all of them")
    parser.add_argument("--without", choices=[*PROOFS], action="append", default=[], help="switch a protection off")
    parser.add_argument(
        "--proofs", action="store_true", help="show that each protection is needed, and do nothing else"
    )
    parser.add_argument("--resume", action="store_true", help=f"go on with the rounds in {_FOLDER}/")
    options = parser.parse_args()
    if options.resume and options.without:
        parser.error("--resume takes the rounds of a run with every protection, so it does not go with --without")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what its clients say about the faults that we make
    console = Console(highlight=False, soft_wrap=True)
    kind = "proofs" if options.proofs else "scenarios" if options.scenario else "rounds"
    journal = Journal(_FOLDER / f"{kind}.jsonl", resume=options.resume)
    try:
        with Brokers(progress=console.print) as brokers:
            if options.proofs:
                return asyncio.run(_cancellable(_prove(options.seed, brokers, journal, console)))
            failed = asyncio.run(_cancellable(_run_all(list(_plan(options)), brokers, journal, console)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("interrupted; --resume goes on")
        return _INTERRUPTED
    finally:
        # A second Ctrl-C ends the clean-up of the first.
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    _show(journal.reports, console)
    return failed


def _plan(options: argparse.Namespace) -> Iterator[Scenario]:
    """The scenarios of all rounds."""
    deliveries = _DELIVERIES if options.delivery == "both" else (options.delivery,)
    names = [*NAMED] if options.scenario == "all" else [options.scenario]
    for number in range(options.rounds):
        seed, delivery = options.seed + number, deliveries[number % len(deliveries)]
        for name in names:
            made = mix(seed, delivery) if name is None else replace(NAMED[name], seed=seed, delivery=delivery)
            yield replace(made, without=(*made.without, *options.without))


async def _cancellable(work: Coroutine[Any, Any, int]) -> int:
    """Let SIGTERM and a lost terminal end it as Ctrl-C does, so that no process stays behind."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


async def _run_all(scenarios: Sequence[Scenario], brokers: Brokers, journal: Journal, console: Console) -> int:
    """Run what the journal does not have yet; 1 when anything failed."""
    failed = 0
    for number, scenario in enumerate(scenarios, 1):
        report = journal.find(scenario)
        if report is None:
            report = await _run_one(scenario, brokers)
            journal.add(report)
            console.print(
                f"{number:>4}/{len(scenarios)}  {_describe(report)}", style="red" if report.problems else None
            )
            _explain(scenario, report, console)
        failed = failed or int(bool(report.problems))
    return failed


async def _run_one(scenario: Scenario, brokers: Brokers) -> Report:
    """Run a scenario in a folder that stays only when it fails."""
    folder = _folder(scenario)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        report = await run(scenario, await brokers.fitting(scenario), folder)
    except Exception as error:
        # One round that cannot be judged must not end a night of them.
        problem = Problem(Kind.STUCK, f"the harness failed: {error!r}")
        report = Report(scenario.name, scenario.seed, scenario.delivery, problems=(problem,))
    if not report.problems:
        shutil.rmtree(folder)
    return report


async def _prove(seed: int, brokers: Brokers, journal: Journal, console: Console) -> int:
    """Run each proof's scenario without its protection; 1 when one of them holds all the same.

    What a fault meets is chance, so that a seed may get away with it: then others are tried.
    """
    idle = 0
    for protection, name in PROOFS.items():
        kinds = ""
        for number in range(_PROOF_SEEDS):
            scenario = replace(NAMED[name], seed=seed + number, without=(*NAMED[name].without, protection))
            report = await _run_one(scenario, brokers)
            journal.add(report)
            kinds = ", ".join(sorted({problem.kind for problem in report.problems}))
            if kinds:
                break
        console.print(f"without {protection}, {name} seed {scenario.seed}: {kinds or 'holds all the same'}")
        idle += not kinds
    return min(idle, 1)


def _folder(scenario: Scenario) -> Path:
    return (_FOLDER / f"{scenario.name}-{scenario.seed}-{scenario.delivery}").absolute()


def _describe(report: Report) -> str:
    happened = ", ".join(f"{count} {what}" for what, count in sorted(report.happened.items()))
    return (
        f"{report.name} seed {report.seed}  {report.delivery}  {report.events} events  {report.results} results  "
        f"{report.dead_letters} dead letters  {report.repeated} repeated  {report.seconds:.1f} s  "
        f"{report.peak_mebibytes:.0f} MiB  [{happened or 'no steps'}]  {'FAILED' if report.problems else 'ok'}"
    ).replace("[", r"\[")


def _explain(scenario: Scenario, report: Report, console: Console) -> None:
    """Say what went wrong, and how to see it again."""
    if not report.problems:
        return
    for problem in report.problems[:_PROBLEMS_SHOWN]:
        console.print(f"        {problem.kind}: {problem.text}", markup=False)
    if (more := len(report.problems) - _PROBLEMS_SHOWN) > 0:
        console.print(f"        and {more} more")
    named = f" --scenario {scenario.name}" if scenario.name in NAMED else ""
    named += "".join(f" --without {name}" for name in scenario.without if name in PROOFS)
    console.print(
        f"        again: {Path(sys.executable).name} -m tests.chaos --seed {scenario.seed} --delivery {scenario.delivery}"
        f"{named}; logs: {_folder(scenario)}",
        markup=False,
    )


def _show(reports: Sequence[Report], console: Console) -> None:
    """The sums: a table on a terminal, else a line for each delivery."""
    sums = [Sum.of(delivery, reports) for delivery in _DELIVERIES]
    sums = [one for one in sums if one.rounds]
    if not console.is_terminal:
        for one in sums:
            console.print("  ".join(f"{name} {value}" for name, value in asdict(one).items()))
        return
    table = Table(*[column.name for column in fields(Sum)])
    for one in sums:
        table.add_row(*map(str, asdict(one).values()))
    console.print(table)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
