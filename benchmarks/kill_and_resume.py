"""A run killed with SIGKILL at random moments and resumed each time, against one left in peace.

    python benchmarks/kill_and_resume.py --json results/kill-and-resume.json
    python benchmarks/kill_and_resume.py --kills 9 -- fashion-mnist --data-dir DIR --epochs 3

What follows `--` goes to `regrow train`. Checkpoints, metrics, results, tuning and topologies of
both runs are compared bit for bit, all but measured seconds and memory. The compute of the layers
is not left to `auto` here, for two runs may measure differently; one run never measures twice.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from regrow.training.differences import differences
from regrow.training.machine import describe_machine

DEFAULT = ["digits", "--compare", "rigl", "dense", "--every", "10", "--epochs", "25"]
# A killed run repeats what it had not saved, so the last moments would come after its end.
SPREAD = 0.9


def start(log: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """Start `regrow train`, its words going to a file, and wait until it is at work."""
    command = [sys.executable, "-m", "regrow.cli", "train", *map(str, arguments)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
    while process.poll() is None and log.stat().st_size == 0:
        time.sleep(0.005)
    return process


def finish(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a run to end, and pass on its complaint if it fails."""
    if process.wait() != 0:
        raise SystemExit(f"the run failed: {log.read_text().splitlines()[-1]}")


def progress_of(run_dir: Path) -> str:
    """How far a run has come, for the eye."""
    metrics = run_dir / "metrics.jsonl"
    if metrics.exists() and (lines := metrics.read_text().splitlines()):
        try:
            row = json.loads(lines[-1])
            return f"{row['arm']} seed {row['seed']} after epoch {row['epoch']}"
        except json.JSONDecodeError:
            return "a line of the metrics half written"
    return "before the first epoch"


def moments(kills: int, seconds: float, generator: random.Random) -> list[float]:
    """Seconds of work from one start to the next kill."""
    points = sorted(generator.uniform(0, SPREAD * seconds) for _ in range(kills))
    return [b - a for a, b in zip([0.0, *points], points, strict=False)]


def kill_and_resume(
    folder: Path, options: list[str], kills: int, generator: random.Random
) -> dict[str, Any]:
    """Do one run in peace and one with kills, and compare them."""
    peaceful, killed, log = folder / "peaceful", folder / "killed", folder / "log"
    process = start(log, *options, "--out", peaceful)
    began = time.time()
    finish(process, log)
    ends = [path.stat().st_mtime for path in peaceful.glob("arms/*/*/result.json")]
    seconds = max(ends) - began  # without the report, which is written after them
    print(f"undisturbed: {seconds:.1f} s of training")
    record: list[dict[str, Any]] = []
    arguments: list[object] = [*options, "--out", killed]
    for delay in moments(kills, seconds, generator):
        process = start(log, *arguments)
        time.sleep(delay)
        process.kill()
        process.wait()
        hit = process.returncode == -9
        where = progress_of(killed) if hit else "its end: there was nothing left to kill"
        print(f"SIGKILL after {delay:5.2f} s: {where}", flush=True)
        record.append({"seconds": delay, "killed": hit, "at": where})
        if (killed / "config.json").exists():
            arguments = ["--resume", killed]
    finish(start(log, *arguments), log)
    found = differences(peaceful, killed)
    return {
        "options": options,
        "kills": record,
        "seconds_undisturbed": seconds,
        "identical": not found,
        "differences": found,
        "machine": describe_machine(),
    }


def main() -> int:
    """Run the benchmark; exit code 0 if the two runs are bit-identical."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, help="of the moments; default: by the clock")
    parser.add_argument("--json", type=Path, help="write the outcome to this file")
    parser.add_argument("options", nargs="*", help="options of regrow train, after --")
    chosen = parser.parse_args()
    seed = time.time_ns() % 2**32 if chosen.seed is None else chosen.seed
    print(f"seed of the moments: {seed}")
    options = chosen.options or DEFAULT
    if "--compute" not in options:
        options = [*options, "--compute", "csr"]
    if "--threads" not in options:
        options = [*options, "--threads", "1"]
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_and_resume(Path(folder), options, chosen.kills, random.Random(seed))
    outcome["seed"] = seed
    done = sum(kill["killed"] for kill in outcome["kills"])
    same = "bit-identical to" if outcome["identical"] else "NOT the same as"
    print(f"killed {done} times and resumed, the run is {same} the undisturbed one")
    print("\n".join(outcome["differences"]))
    if chosen.json is not None:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(outcome, indent=2) + "\n")
    return 0 if outcome["identical"] and done == chosen.kills else 1


if __name__ == "__main__":
    sys.exit(main())
