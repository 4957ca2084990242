"""The command line: `regrow train`, `report`, `select`, `reproduce`, `systems`, and others."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

from jsonargparse import ArgumentParser, Namespace

from regrow.training.errors import OptionError, Stopped
from regrow.training.options import TrainOptions, option_fields

BAD_INPUT = 2

_DESCRIPTION = """\
Train sparse neural networks from scratch: sparse in memory and in arithmetic,
dropping and growing their own connections while they learn."""

_EXAMPLES = """\
examples:
  regrow train                                  handwritten digits, a tenth of the connections
  regrow train digits --compare dense static    the same, beside its dense and its static twin
  regrow train people.csv --target income       a column of your own table
  regrow report runs/digits-set-20260101-120000 make the report of a run again
  regrow select genes.csv --target tumour -k 50 the features that matter in a table
  regrow reproduce set                          what a paper claims, and whether it comes out
  regrow systems                                the published systems, and which work today
  regrow bench                                  from which density on sparse layers pay here

`regrow train --help` explains every option."""

_TRAIN_DESCRIPTION = """\
Train a sparse network, and its twins where asked, on a data set. At the end a
table and a report compare score, connections, memory, arithmetic and time.
Ctrl-C stops without losing anything: --resume continues, bit for bit."""

_TRAIN_EXAMPLES = """\
examples:
  regrow train
  regrow train digits --density 0.05 --compare dense static --seeds 3
  regrow train fashion-mnist --data-dir data --hidden 1000 1000 1000 --epsilon 20
  regrow train people.csv --target income --method rigl --optimizer adam
  regrow train cifar10 --model resnet-20 --augment --rate-schedule step --data-dir data
  regrow train tiny-shakespeare --model transformer --optimizer adam --data-dir data
  regrow train --resume runs/digits-set-20260101-120000
  regrow train --print_config > mine.yaml; regrow train --config mine.yaml"""

_SELECT_DESCRIPTION = """\
Find the features of a table that matter, with a sparse network. Writes the
ranking, the table of the kept features, and a report that compares the choice
with simpler ones on held-out rows."""

_SELECT_EXAMPLES = """\
examples:
  regrow select digits -k 16
  regrow select genes.csv --target tumour -k 50 --method neurofs
  regrow select sensors.parquet -k 100 --method wast
  regrow select madelon.mat -k 20 --method attribution --seeds 5"""

_SELECT_MUST = {
    "k": "be a whole number >= 1",
    "seeds": "be a whole number >= 1",
    "epochs": "be a whole number >= 1",
    "seed": "be a whole number >= 0",
    "test": "be a number in (0, 1)",
}

_REPRODUCE_DESCRIPTION = """\
Run the published experiment of a system again, small and faithful, and write
what must come out and what did. Finished parts survive Ctrl-C and a crash: the
same command continues. `regrow systems` lists the names."""

_REPRODUCE_EXAMPLES = """\
examples:
  regrow reproduce itop --scale quick
  regrow reproduce set --data-dir data
  regrow reproduce set granet --seeds 5 --data-dir data
  regrow reproduce --all --scale quick"""

_REPRODUCE_MUST = {
    "seeds": "be a whole number >= 1",
    "jobs": "be a whole number >= 1",
}

_BENCH_DESCRIPTION = """\
Time a training step of sparse and dense layers at falling densities, side by
side, and print from which density on sparse layers pay on this machine. Takes
about half a minute; leave the machine alone meanwhile."""

_BENCH_EXAMPLES = """\
examples:
  regrow bench
  regrow bench --shapes 1024x784 4096 --batch 32 --threads 1
  regrow bench --json > mine.json
  regrow bench --forget"""

# Said here, since importing them would take seconds at every command.
_BENCH_SHAPES = "outputs x inputs (default: 512x512 1024x1024 2048x2048)"
_BENCH_DENSITIES = "kept fractions (default: 1.0 0.5 0.25 0.1 0.05 0.02 0.01)"
_BENCH_OUT = "where the picture and the JSON file go (default: runs/bench)"
_BENCH_FORGET = "only drop what `auto` has stored about this machine, to be measured anew"
_BENCH_MUST = {"batch": "be a whole number >= 1", "densities": "be numbers in (0, 1]"}

_GROUPS = {
    "data": "data",
    "network": "network",
    "method": "sparse method",
    "training": "training",
    "machine": "machine and files",
}


class InputError(ValueError):
    """Arguments that cannot be used, said in one sentence."""


class _Parser(ArgumentParser):
    """Raises its complaints as one sentence instead of printing usage and exiting."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of exiting."""
        raise InputError(_sentence(message)) from ex


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Default: those of the process.

    Returns:
        Exit code: 0 done, 1 a training diverged, 2 bad input, 128 + signal where one stopped it.
    """
    try:
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return 128 + stopped.signal_number
    except KeyboardInterrupt:
        print("regrow: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError) as error:
        if _debugging():
            raise
        print(f"regrow: {_message(error)}", file=sys.stderr)
        return BAD_INPUT
    except Exception as error:
        if _debugging():
            raise
        print(
            f"regrow: internal error ({type(error).__name__}: {_message(error)}); "
            f"REGROW_DEBUG=1 shows where, please report it",
            file=sys.stderr,
        )
        return 1


def _debugging() -> bool:
    return os.environ.get("REGROW_DEBUG") == "1"


def build_parser() -> ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="regrow",
        version=version("regrow"),
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    commands = parser.add_subcommands(dest="command", required=False, metavar="COMMAND")
    commands.add_subcommand("train", _train_parser(), help="train a network, and its twins")
    commands.add_subcommand("report", _report_parser(), help="write the report of a run again")
    commands.add_subcommand("select", _select_parser(), help="find the features that matter")
    help = "run a published experiment again"
    commands.add_subcommand("reproduce", _reproduce_parser(), help=help)
    commands.add_subcommand("systems", _systems_parser(), help="list the published systems")
    commands.add_subcommand("bench", _bench_parser(), help="time sparse layers on this machine")
    commands.add_subcommand("methods", _methods_parser(), help="list the methods")
    return parser


def _run(arguments: list[str]) -> int:
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    if parsed.command is None:
        parser.print_help()
        return 0
    given = parser.parse_args(arguments, defaults=False)
    chosen = parsed[parsed.command]
    if parsed.command == "train":
        command = shlex.join(["regrow", *arguments])
        return _train(chosen, set(vars(given[parsed.command])), command)
    if parsed.command == "select":
        return _select(chosen, shlex.join(["regrow", *arguments]))
    return _COMMANDS[parsed.command](chosen)


def _train_parser() -> ArgumentParser:
    parser = _Parser(description=_TRAIN_DESCRIPTION, epilog=_TRAIN_EXAMPLES)
    groups = {key: parser.add_argument_group(title) for key, title in _GROUPS.items()}
    kinds = get_type_hints(TrainOptions)
    for name, entry in option_fields().items():
        details, kind = entry.metadata, kinds[name]
        more: dict[str, Any] = {"default": entry.default, "help": _help(entry.default, details)}
        if "metavar" in details:
            more["metavar"] = details["metavar"]
        if isinstance(entry.default, tuple):
            more["default"] = list(entry.default)
            more["nargs"] = "*"
            groups[details["group"]].add_argument(_flag(name), type=get_args(kind)[0], **more)
        elif kind is bool:
            groups[details["group"]].add_argument(_flag(name), action="store_true", **more)
        elif name == "data":
            # Without a default here, a file of options can name the data too.
            more["default"] = argparse.SUPPRESS
            groups["data"].add_argument("data", nargs="?", type=kind, metavar="DATA", **more)
        else:
            more.setdefault("metavar", name.upper())
            groups[details["group"]].add_argument(_flag(name), type=kind, **more)
    files = groups["machine"]
    files.add_argument("--resume", type=str | None, metavar="RUN", help="continue a stopped run")
    files.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--config",
        action="config",
        metavar="FILE",
        help="take options from a file, as --print_config shows them",
    )
    return parser


def _report_parser() -> ArgumentParser:
    parser = _Parser(description="Write the report of a run directory again.")
    parser.add_argument("run", type=str, metavar="RUN", help="run directory")
    return parser


def _select_parser() -> ArgumentParser:
    parser = _Parser(description=_SELECT_DESCRIPTION, epilog=_SELECT_EXAMPLES)
    add = parser.add_argument
    add("data", type=str, metavar="DATA", help="a table or images, as `regrow train` takes them")
    add("--target", type=str | None, metavar="COLUMN", help="column of the classes")
    add("-k", "--k", type=int, default=20, metavar="N", help="features to keep (default: 20)")
    methods = "quickselection and wast need no target, neurofs and attribution do"
    add("--method", type=str, default="neurofs", help=f"{methods} (default: neurofs)")
    add("--seeds", type=int, default=3, metavar="N", help="rankings to average (default: 3)")
    add("--seed", type=int, default=0, help="the first seed (default: 0)")
    add("--epochs", type=int | None, metavar="N", help="default: those of the method")
    against = "rankings to set beside it (default: f-test trees variance chance)"
    add("--against", type=str, nargs="*", default=None, metavar="NAME", help=against)
    test = "share of rows that the comparison is judged on (default: 0.2)"
    add("--test", type=float, default=0.2, metavar="SHARE", help=test)
    add("--data_dir", "--data-dir", type=str | None, metavar="DIR", help="folder of named data")
    add("--threads", type=int | None, metavar="N", help="threads; default: those of torch")
    out = "folder to write to; default: runs/<data>-<method>-<time>"
    add("--out", type=str | None, metavar="DIR", help=out)
    add("--quiet", action="store_true", help="show no progress")
    add("--config", action="config", metavar="FILE", help="take options from a file")
    return parser


def _reproduce_parser() -> ArgumentParser:
    parser = _Parser(description=_REPRODUCE_DESCRIPTION, epilog=_REPRODUCE_EXAMPLES)
    add = parser.add_argument
    add("name", nargs="*", type=str, metavar="NAME", help="systems")
    add("--all", action="store_true", help="all that work today")
    scale = (
        "quick: half a minute, no data needed; small: the one that is reported; paper: as published"
    )
    add("--scale", type=str, default="small", help=f"{scale} (default: small)")
    add("--seeds", type=int | None, metavar="N", help="default: those of the scale")
    add("--data_dir", "--data-dir", type=str | None, metavar="DIR", help="folder of the data sets")
    add("--jobs", type=int | None, metavar="N", help="parts at a time; default: one a core")
    out = "folder of outcomes and pictures (default: results)"
    add("--out", type=str, default="results", metavar="DIR", help=out)
    runs = "folder of finished parts (default: runs/reproduce)"
    add("--runs", type=str, default="runs/reproduce", metavar="DIR", help=runs)
    redraw = "only make tables, verdicts and pictures of a finished outcome anew"
    add("--redraw", action="store_true", help=redraw)
    add("--quiet", action="store_true", help="show no progress")
    return parser


def _systems_parser() -> ArgumentParser:
    return _Parser(description="List the published systems, and which can be reproduced today.")


def _bench_parser() -> ArgumentParser:
    parser = _Parser(description=_BENCH_DESCRIPTION, epilog=_BENCH_EXAMPLES)
    add = parser.add_argument
    lists: dict[str, Any] = {"nargs": "+", "default": None}
    add("--shapes", type=str, metavar="NxM", help=_BENCH_SHAPES, **lists)
    add("--densities", type=float, metavar="D", help=_BENCH_DENSITIES, **lists)
    add("--batch", type=int, default=128, metavar="N", help="rows of the input (default: 128)")
    add("--threads", type=int | None, metavar="N", help="threads; default: those of torch")
    add("--out", type=str, default="runs/bench", metavar="FOLDER", help=_BENCH_OUT)
    add("--json", action="store_true", help="print JSON instead of the tables")
    add("--forget", action="store_true", help=_BENCH_FORGET)
    return parser


def _methods_parser() -> ArgumentParser:
    parser = _Parser(description="List the methods that --method and --compare take.")
    parser.add_argument("name", nargs="*", type=str, metavar="NAME", help="tell all about these")
    return parser


def _train(chosen: Namespace, given: set[str], command: str) -> int:
    from regrow.training.progress import default_progress
    from regrow.training.run import resume, train

    progress = default_progress(chosen.quiet)
    if chosen.resume is not None:
        others = sorted(given - {"resume", "threads", "quiet"})
        if others:
            raise InputError(
                f"--resume continues a run with its own options and takes only --threads and "
                f"--quiet beside it, got {' '.join(map(_shown, others))}"
            )
        result = resume(chosen.resume, threads=chosen.threads, progress=progress)
    else:
        values = {name: chosen.get(name) for name in option_fields() if name in chosen}
        result = train(TrainOptions(**values), progress=progress, command=command)
    print(f"\n{result.table}\n\nrun:    {result.run_dir}")
    if result.report is not None:
        print(f"report: {result.report}")
    return 1 if result.diverged else 0


def _report(chosen: Namespace) -> int:
    from regrow.training.report import write_report
    from regrow.training.run import read_config

    run_dir = Path(chosen.run)
    read_config(run_dir)
    print(f"report: {write_report(run_dir)}")
    return 0


def _select(chosen: Namespace, command: str) -> int:
    from regrow.selection.command import select

    def tell(text: str) -> None:
        if not chosen.quiet:
            print(text, file=sys.stderr)

    print(select(chosen, command, tell))
    return 0


def _reproduce(chosen: Namespace) -> int:
    from regrow.reproduce.run import Job, redraw, reproduce
    from regrow.reproduce.show import text
    from regrow.reproduce.systems import systems

    names = [name for name, system in systems().items() if system.works] if chosen.all else []
    names += [name for name in chosen.name if name not in names]
    if not names:
        raise InputError("NAME must be a system, or --all be given; `regrow systems` lists them")
    for name in names:
        job = Job(
            name,
            scale=chosen.scale,
            seeds=chosen.seeds,
            data_dir=chosen.data_dir,
            jobs=chosen.jobs,
            out=chosen.out,
            runs=chosen.runs,
            quiet=chosen.quiet,
        )
        done = redraw(job) if chosen.redraw else reproduce(job)
        print(f"{text(done.record)}\n")
        for path in done.pictures:
            print(f"picture: {path}")
        print(f"outcome: {done.path}\n", flush=True)
    return 0


def _systems(chosen: Namespace) -> int:
    from regrow.reproduce.systems import systems

    known = systems()
    width = max(map(len, known))
    for system in known.values():
        print(f"{system.name:{width}}  {system.state:8} {system.line}")
    print(f"\n{sum(system.works for system in known.values())} of {len(known)} work today")
    return 0


def _bench(chosen: Namespace) -> int:
    if chosen.forget:
        from regrow.kernels import remembered

        count, folder = remembered.forget(), remembered.folder()
        stored = f"{count} file(s) of decisions dropped from {folder}"
        print("nothing is stored: REGROW_CACHE is off" if folder is None else stored)
        return 0
    from regrow.measure import bench, pictures

    lists = {name: chosen[name] for name in ("shapes", "densities") if chosen[name] is not None}
    out = Path(chosen.out)
    found = bench.bench(
        **lists,
        batch=chosen.batch,
        threads=chosen.threads,
        progress=lambda text: print(text, file=sys.stderr),
    )
    record = json.dumps(found.to_dict(), indent=2)
    print(record if chosen.json else found)  # first, the folder may turn out not to be writable
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(record + "\n", encoding="utf-8")
    pictures.save_png(pictures.break_even_curves(found), out / "bench.png")
    if not chosen.json:
        print(f"\nwrote {out}/bench.json and {out}/bench.png")
    return 0


def _methods(chosen: Namespace) -> int:
    from regrow.evolution import methods
    from regrow.evolution.catalogue import account

    known = methods()
    if not chosen.name:
        print(known)
        print("dense: all connections, the twin that sparse ones are set beside")
        return 0
    for name in chosen.name:
        if name not in known:
            raise InputError(f"NAME must be one of {', '.join(sorted(known))}, got {name!r}")
    print("\n\n".join(account(known[name]) for name in chosen.name))
    return 0


_COMMANDS = {
    "report": _report,
    "reproduce": _reproduce,
    "systems": _systems,
    "bench": _bench,
    "methods": _methods,
}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _shown(name: str) -> str:
    return "DATA" if name == "data" else _flag(name)


def _help(default: object, details: Any) -> str:
    text = str(details["help"]).replace("%", "%%")
    if default in (None, (), False):
        return text
    values = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"{text} (default: {values})"


def _sentence(message: str) -> str:
    """One sentence of what jsonargparse says over several lines."""
    key = re.match(r'Parser key "(?:\w+\.)?(\w+)"', message)
    value = re.search(r"(?:Got|Given) value: (.*)", message)
    if key and value:
        option = option_fields().get(key[1])
        must = (
            option.metadata["must"]
            if option
            else {**_BENCH_MUST, **_SELECT_MUST, **_REPRODUCE_MUST}.get(key[1])
        )
        if must:
            return _message(OptionError(key[1], must, value[1].strip("'")))
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = " ".join(lines).rstrip(".")
    return re.sub(r'^Parser key "(?:train\.)?config": ', "--config: ", text)


def _message(error: BaseException) -> str:
    if isinstance(error, OptionError):
        text = str(error)
        return _shown(error.name) + text.removeprefix(error.name)
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror.lower()}: {error.filename}"
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
