"""Condense a run of `regrow train` into one small JSON file for `results/`.

    python benchmarks/collect.py RUN results/NAME.json

What is kept: the options that were not left at their defaults, versions, machine, and for every arm
what each seed came to. No path of the machine is kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from regrow.files import read_json
from regrow.training.job import is_done, job_folder
from regrow.training.options import TrainOptions, option_fields

_PLACES = ("data_dir", "out", "quiet")
_PER_SEED = (
    "test_score",
    "test_score_at_best",
    "seconds_per_epoch",
    "peak_bytes",
    "flops_training_total",
)
_PER_ARM = (
    "learning_rate",
    "connections",
    "bytes_total",
    "dense_connections",
    "flops_forward_per_sample",
)


def collect(run_dir: Path) -> dict[str, Any]:
    """The figures of a run; of one that is not finished, the seeds that every arm has come to."""
    config, dataset = read_json(run_dir / "config.json"), read_json(run_dir / "dataset.json")
    options = TrainOptions.from_dict(config)
    seeds = [
        seed
        for seed in options.all_seeds
        if all(is_done(job_folder(run_dir, arm, seed)) for arm in options.arms)
    ]
    if not seeds:
        raise SystemExit(f"{run_dir} has no seed that every arm has come to the end of")
    arms = {}
    for arm in options.arms:
        folders = [job_folder(run_dir, arm, seed) for seed in seeds]
        ended = [folder / "result.json" for folder in folders]
        results = [read_json(path) for path in ended if path.exists()]
        arms[arm] = {
            **{name: results[0][name] for name in _PER_ARM if results},
            **{name: [result[name] for result in results] for name in _PER_SEED},
        }
        if len(results) < len(folders):
            arms[arm]["diverged"] = len(folders) - len(results)
    machine = {name: config["machine"][name] for name in ("processor", "cores", "kernels")}
    return {
        "options": {
            name: getattr(options, name)
            for name, field in option_fields().items()
            if name not in _PLACES and getattr(options, name) != field.default
        },
        "epochs": options.epochs,
        "seeds": len(seeds),
        "pilots": read_json(run_dir / "tuning.json") if options.learning_rate == "auto" else None,
        "task": dataset["task"],
        "rows": {part: dataset[f"n_{part}"] for part in ("train", "validation", "test")},
        "regrow": config["regrow"],
        "torch": config["torch"],
        "threads": config["threads"],
        "machine": machine,
        "arms": arms,
    }


def main() -> None:
    """Read the run, write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("json", type=Path, help="file to write")
    options = parser.parse_args()
    options.json.write_text(json.dumps(collect(options.run), indent=2) + "\n")
    print(f"wrote {options.json}")


if __name__ == "__main__":
    main()
