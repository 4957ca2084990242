"""The experiments of the results page: each is one or more runs of `regrow train`.

    python benchmarks/experiments.py resnet --data-dir DATA --runs RUNS

trains what `results/resnet.json` is made from, in folders under RUNS, and writes that file. A run
that is there already is continued, or only read if it is finished, so the command may be stopped
and given again. `--list` prints the commands.
"""

from __future__ import annotations

import argparse
import json
import runpy
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from regrow import cli
from regrow.data import load
from regrow.evolution import methods
from regrow.files import read_json
from regrow.measure import pictures
from regrow.training import TrainOptions
from regrow.training.loop import Job, Trainer
from regrow.training.machine import session
from regrow.training.score import Score

ROOT = Path(__file__).parents[1]
COLLECT = runpy.run_path(str(ROOT / "benchmarks" / "collect.py"))["collect"]

_RESNET = (
    "cifar10 --model resnet-20 --method set --epochs 8 --seeds 2 --limit-train 3000 "
    "--limit-test 1000 --batch-size 64 --augment "
    "--rate-schedule cosine --warm-up 0.1 --learning-rate 0.1 --weight-decay 0.0005 --every 28 "
    "--until 0.75"
)
_TRANSFORMER = (
    "tiny-shakespeare --model transformer --width 64 --context 64 --method set --density 0.25 "
    "--seeds 3 --epochs 2 --batch-size 32 --learning-rate 0.003 --weight-decay 0 "
    "--rate-schedule cosine --warm-up 0.05 --every 50 --start zero --until 0.75"
)
_LSTM = (
    "gutenberg --model lstm --context 64 --method set --density 0.33 --seeds 3 --epochs 2 "
    "--limit-train 10000 --limit-test 2000 --batch-size 32 --optimizer adam "
    "--learning-rate 0.003 --weight-decay 0 --rate-schedule cosine --warm-up 0.05 --every 50 "
    "--start zero --until 0.75"
)


_TIMED_EPOCHS = {"methods": 6}
_TIMED_SAMPLES = 2000


def experiments() -> dict[str, dict[str, str]]:
    """By experiment, the arguments of `regrow train` for each of its runs."""
    evolving = " ".join(sorted(methods().keys() - {"set"}))
    return {
        "methods": {
            "run": f"fashion-mnist --method set --compare {evolving} dense --hidden 512 512 "
            "--density 0.05 --epochs 10 --seeds 3 --limit-train 10000 --batch-size 100 --every 30 "
            "--until 0.75 --rate-schedule cosine",
        },
        "resnet": {
            "density 0.1": f"{_RESNET} --density 0.1 --compare static rigl granet dense",
            "density 0.05": f"{_RESNET} --density 0.05 --compare static rigl granet",
        },
        "transformer": {
            "Adam": f"{_TRANSFORMER} --compare static dense --optimizer adam",
            "LocalAgeAdam": f"{_TRANSFORMER} --optimizer local-age-adam",
        },
        "lstm": {
            "gates together": f"{_LSTM} --compare static dense --scope layer",
            "gates apart": f"{_LSTM} --scope gate",
        },
    }


def run(name: str, data_dir: str, runs: Path) -> dict[str, Any]:
    """Do what is not done yet of an experiment, and collect it."""
    found = {}
    for label, arguments in experiments()[name].items():
        folder = runs / f"{name}-{label.replace(' ', '-')}"
        if (folder / "config.json").exists():
            code = cli.main(["train", "--resume", str(folder)])
        else:
            more = ["--threads", "1", "--data-dir", data_dir, "--out", str(folder)]
            code = cli.main(["train", *arguments.split(), *more])
        if code > 1:
            sys.exit(code)
        found[label] = {"command": f"regrow train {arguments} --threads 1", **COLLECT(folder)}
        for arm, seconds in processor_seconds(folder, _TIMED_EPOCHS.get(name, 1)).items():
            found[label]["arms"][arm]["processor_seconds_per_epoch"] = seconds
    return found


def processor_seconds(run_dir: Path, epochs: int) -> dict[str, float]:
    """Processor time of an epoch of every arm, from short trainings one after another.

    Unlike seconds on a clock it hardly depends on what else the machine does. The trainings see at
    most some thousand samples, which is made up for. Densities that change do so within the short
    training; evaluation is left out.
    """
    rows = read_json(run_dir / "dataset.json")["n_train"]
    options = TrainOptions.from_dict(read_json(run_dir / "config.json"))
    chosen = read_json(run_dir / "compute.json")
    rates = dict.fromkeys(options.arms, options.learning_rate)
    if options.learning_rate == "auto":
        rates = read_json(run_dir / "tuning.json")["chosen"]
    dataset = load(
        options.data,
        data_dir=options.data_dir,
        seed=options.seed,
        limit_train=min(options.limit_train or _TIMED_SAMPLES, _TIMED_SAMPLES),
        limit_test=options.limit_test,
        context=options.context,
    )
    found = {}
    with session(options.threads or 1):
        for arm in options.arms:
            job = Job(arm, options.seed, float(rates[arm]), epochs, chosen[arm])
            spent = _processor_time(Trainer(options, dataset, job))
            found[arm] = spent / epochs * rows / len(dataset.x_train)
    return found


def _processor_time(trainer: Trainer) -> float:
    begin, spent = time.process_time(), 0.0

    def evaluate() -> Score:
        nonlocal spent
        start = time.process_time()
        score = trainer.evaluate(trainer.dataset.x_validation, trainer.dataset.y_validation)
        spent += time.process_time() - start
        return score

    while not trainer.finished:
        trainer.train_epoch(lambda *_: None, evaluate)
    return time.process_time() - begin - spent


def draw(name: str, found: dict[str, Any]) -> None:
    """Score against what it cost, in seconds and in FLOPs, as pictures for the results page."""
    arms = {arm: figures for run in found.values() for arm, figures in run["arms"].items()}
    epochs = next(iter(found.values()))["epochs"]
    costs = {"seconds": "seconds of processor time", "flops": "FLOPs of training"}
    for cost, label in costs.items():
        marks = {}
        for arm, figures in arms.items():
            scores = figures["test_score"]
            spent = figures["flops_training_total"]
            if cost == "seconds":
                spent = [epochs * figures["processor_seconds_per_epoch"]] * len(scores)
            if scores:
                marks[arm] = list(zip(spent, scores, strict=True))
        figure = pictures.trade_off(
            marks,
            title=f"Test accuracy and {label}",
            subtitle="last epoch, mean and deviation over seeds",
            x_label=label,
            percent=True,
        )
        pictures.save_png(figure, ROOT / "docs" / "images" / f"{name}-{cost}.png")


def main() -> None:
    """Run one experiment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=experiments())
    parser.add_argument("--data-dir", default="data", help="folder of the data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs go")
    parser.add_argument("--list", action="store_true", help="only print the commands")
    options = parser.parse_args()
    if options.list:
        for arguments in experiments()[options.name].values():
            print(shlex.join(["regrow", "train", *arguments.split(), "--threads", "1"]))
        return
    found = run(options.name, options.data_dir, options.runs)
    path = ROOT / "results" / f"{options.name}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    print(f"wrote {path}")
    if options.name == "methods":
        draw(options.name, found)


if __name__ == "__main__":
    main()
