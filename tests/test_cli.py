"""The command line, as its users meet it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from regrow import cli
from regrow.evolution import methods
from regrow.evolution.starts import STARTS
from regrow.topology.allocation import ALLOCATIONS
from regrow.training.errors import Stopped

KNOWN = ", ".join(sorted([*methods(), "dense"]))
SMALL = ["--hidden", "16", "--learning-rate", "0.05", "--threads", "1", "--compute", "csr"]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as leave:  # --help and --version
        code = int(leave.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(autouse=True)
def _no_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "end_to_end" not in request.node.name:
        monkeypatch.setattr("regrow.training.run._Run._report", lambda run: run.run_dir / "r.html")


def test_end_to_end(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "mine"
    code, table, progress = run(
        capsys, "train", "--epochs", 2, "--compare", "dense", "static", "--out", out, *SMALL
    )
    assert code == 0
    for arm in ("set", "dense", "static"):
        assert re.search(rf"^{arm} +0\.\d{{4}} ", table, re.MULTILINE)
    assert table.endswith(f"run:    {out}\nreport: {out}/report.html\n")
    assert (out / "report.html").stat().st_size > 1000
    assert "digits: classification of 64 features" in progress
    assert "dense seed 0: epoch 2/2, loss " in progress
    typed = json.loads((out / "config.json").read_text())["command"]
    assert typed.startswith("regrow train --epochs 2 --compare dense static --out ")
    code, again, _ = run(capsys, "train", "--resume", out, "--quiet")
    assert (code, again) == (0, table)
    (out / "report.html").unlink()
    code, text, _ = run(capsys, "report", out)
    assert (code, text) == (0, f"report: {out}/report.html\n")
    assert (out / "report.html").exists()


def test_quiet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["train", "--epochs", 1, "--limit-train", 100, "--out", tmp_path / "q", *SMALL]
    code, table, progress = run(capsys, *arguments, "--quiet")
    assert code == 0
    assert "set" in table
    assert progress == ""


def test_table_with_missing_values_and_text(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("pandas")
    table = tmp_path / "people.csv"
    colours = ["red", "green", "", "blue"]
    rows = [
        f"{colours[i % 4]},{'' if i % 5 == 0 else i % 13},7,{'yes' if i % 4 < 2 else 'no'}"
        for i in range(120)
    ]
    table.write_text("\n".join(["colour,size,same,happy", *rows]))
    code, text, progress = run(
        capsys, "train", table, "--target", "happy", "--epochs", 30, "--density", 0.5,
        "--out", tmp_path / "people", *SMALL,
    )  # fmt: skip
    assert code == 0, progress
    assert float(re.search(r"^set +(0\.\d+|1\.0+)", text, re.MULTILINE)[1]) > 0.9  # type: ignore[index]
    config = json.loads((tmp_path / "people" / "config.json").read_text())
    assert config["data"] == str(table)
    dataset = json.loads((tmp_path / "people" / "dataset.json").read_text())
    assert dataset["class_names"] == ["no", "yes"]


def test_default_folder_names_data_method_and_time(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--method", "rigl", "--every", 1, "--epochs", 1, "--limit-train", 50, *SMALL]
    code, text, _ = run(capsys, "train", *arguments)
    assert code == 0
    assert re.search(r"^run:    runs/digits-rigl-\d{8}-\d{6}$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--epochs", "0"], "--epochs must be a whole number >= 1, got 0"),
        (["--epochs", "many"], "--epochs must be a whole number >= 1, got many"),
        (["--epochs", "1.5"], "--epochs must be a whole number >= 1, got 1.5"),
        (["--hidden", "8", "x"], "--hidden must be whole numbers >= 1, got x"),
        (["--density", "1.5"], "--density must be a number in (0, 1], got 1.5"),
        (["--learning-rate", "fast"], "--learning-rate must be a number > 0 or auto, got fast"),
        (["--every", "day"], "--every must be a whole number >= 1 or epoch, got day"),
        (["--compute", "gpu"], "--compute must be one of auto, csr, dense, got gpu"),
        (["--method", "sett"], f"--method must be one of {KNOWN}, got sett"),
        (["--compare", "dens"], f"--compare must be one of {KNOWN}, got dens"),
        (
            ["--allocation", "even"],
            f"--allocation must be one of {', '.join(ALLOCATIONS)}, got even",
        ),
        (["--start", "x"], f"--start must be one of {', '.join(STARTS)}, got x"),
        (
            ["--model", "lstm"],
            "--model must be another for digits, no text, got lstm",
        ),
        (
            ["--density", "0.1", "--epsilon", "2"],
            "--density must be left out when epsilon is given, got 0.1",
        ),
        (["--epoch", "3"], "unrecognized arguments: --epoch"),
        (["digits", "iris"], "unrecognized arguments: iris"),
        (["--resume"], "argument --resume: expected one argument"),
        (["--resume", "nowhere"], "run directory must hold a config.json, got none in nowhere"),
        (
            ["digits", "--resume", "r", "--seed", "0"],
            "--resume continues a run with its own options and takes only --threads and --quiet "
            "beside it, got DATA --seed",
        ),
        (["--target", "x"], "target must be left out for digits, which has its own, got 'x'"),
        (["nothing.csv"], "data file must exist, got none at nothing.csv"),
        (["--config", "nothing.yaml"], None),
    ],
)  # fmt: skip
def test_bad_input(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sentence: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGROW_DATA", raising=False)
    code, out, err = run(capsys, "train", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("regrow: ")
    assert err.count("\n") == 1
    if sentence is not None:
        assert err == f"regrow: {sentence}\n"
    assert not list(tmp_path.iterdir())


def test_debugging_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGROW_DEBUG", "1")
    with pytest.raises(ValueError, match="--epochs must be"):
        cli.main(["train", "--epochs", "x"])


def test_an_error_of_ours_is_one_sentence_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(chosen: object) -> int:
        raise RuntimeError("broken\n  inside")

    monkeypatch.setitem(cli._COMMANDS, "report", fail)
    code, _, err = run(capsys, "report", "x")
    assert code == 1
    assert err == (
        "regrow: internal error (RuntimeError: broken inside); "
        "REGROW_DEBUG=1 shows where, please report it\n"
    )


def test_options_from_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    code, text, _ = run(
        capsys, "train", "--epochs", 1, "--limit-train", 100, *SMALL, "--print_config"
    )
    assert code == 0
    file.write_text(text + f"data: digits\nout: {tmp_path / 'run'}\n")
    code, _, _ = run(capsys, "train", "--config", file, "--seed", 4, "--quiet")
    assert code == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["epochs"], config["hidden"], config["seed"]) == (1, [16], 4)
    file.write_text("epoch: 1\n")
    code, _, err = run(capsys, "train", "--config", file)
    assert (code, err.count("\n")) == (2, 1)
    assert "epoch" in err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"]):
        code, text, _ = run(capsys, *arguments)
        assert code == 0
        assert "regrow train digits --compare dense static" in text
    code, text, _ = run(capsys, "train", "--help")
    assert code == 0
    for part in ("sparse method:", "(default: digits)", "--learning-rate RATE", "examples:"):
        assert part in " ".join(text.split())


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from regrow import cli\n"
        "try: cli.main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capsys, "--version")
    assert code == 0
    assert re.fullmatch(r"regrow \d+\.\d+\.\S+\n", text)


def test_methods(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capsys, "methods")
    assert code == 0
    assert [line.split()[0] for line in text.splitlines()] == [
        "method",
        *sorted(methods()),
        "dense:",
    ]
    code, text, _ = run(capsys, "methods", "granet", "static")
    assert code == 0
    assert "  density      0.5 to 0.1, cubic\n" in text
    assert "  differs      " in text
    code, text, error = run(capsys, "methods", "best")
    assert (code, text) == (2, "")
    assert error == f"regrow: NAME must be one of {', '.join(sorted(methods()))}, got 'best'\n"


def test_bench(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    small = ["--shapes", "12x8", "--densities", "0.5", "--batch", 2, "--threads", 1]
    out = tmp_path / "deep" / "bench"
    code, text, progress = run(capsys, "bench", *small, "--out", out)
    assert code == 0
    assert "break-even" in text
    assert text.endswith(f"wrote {out}/bench.json and {out}/bench.png\n")
    assert progress == "12x8 at density 0.5\n"
    assert (out / "bench.png").read_bytes()[1:4] == b"PNG"
    stored = json.loads((out / "bench.json").read_text())
    assert list(stored["shapes"]) == ["12x8"]
    code, text, _ = run(capsys, "bench", *small, "--out", out, "--json")
    assert code == 0
    assert json.loads(text)["batch"] == 2


def test_bench_help_names_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    from regrow.measure.bench import DENSITIES, SHAPES

    text = " ".join(run(capsys, "bench", "--help")[1].split())
    assert f"(default: {' '.join(SHAPES)})" in text
    assert f"(default: {' '.join(map(str, DENSITIES))})" in text


def test_bench_forgets(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGROW_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "decisions-1.json").write_text("{}")
    (tmp_path / "other.json").write_text("{}")
    code, text, _ = run(capsys, "bench", "--forget")
    assert (code, text) == (0, f"1 file(s) of decisions dropped from {tmp_path}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]
    monkeypatch.setenv("REGROW_CACHE", "off")
    code, text, _ = run(capsys, "bench", "--forget")
    assert (code, text) == (0, "nothing is stored: REGROW_CACHE is off\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--batch", "many"], "--batch must be a whole number >= 1, got many"),
        (["--batch", "0"], "batch must be a whole number >= 1, got 0"),
        (["--threads", "x"], "--threads must be a whole number >= 1, got x"),
        (["--densities", "2"], "density must be in (0, 1], got 2.0"),
        (["--densities", "x"], "--densities must be numbers in (0, 1], got x"),
        (
            ["--shapes", "3x"],
            "shape must be outputs x inputs, such as 1024x784 or 1024, got '3x'",
        ),
    ],
)
def test_bench_refuses(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "bench", *arguments)
    assert (code, err) == (2, f"regrow: {sentence}\n")
    assert not list(tmp_path.iterdir())


def test_stopped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise Stopped(Path("runs/x"), signal.SIGTERM)

    monkeypatch.setattr("regrow.training.run.train", stop)
    code, _, err = run(capsys, "train")
    assert code == 143
    assert err == "stopped; continue with: regrow train --resume runs/x\n"


@pytest.mark.skipif(os.name == "nt", reason="signals differ there")
def test_ctrl_c_and_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "long"
    arguments = ["train", "--epochs", "60", "--limit-train", "100", "--out", str(out), *SMALL]
    code = "import sys; from regrow.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True
    )
    metrics = out / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    last = err.splitlines()[-1]
    assert last == f"stopped; continue with: regrow train --resume {out}"
    assert "Traceback" not in err
    code_, _, err = run(capsys, *last.split("regrow ")[1].split(), "--quiet")
    assert (code_, err) == (0, "")
    assert len(metrics.read_text().splitlines()) == 60
