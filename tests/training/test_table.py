"""The table at the end of a run."""

from typing import Any

from regrow.training.table import format_table, human_bytes, human_count


def result(score: float, scale: int) -> dict[str, Any]:
    return {
        "test_score": score,
        "connections": 1000 * scale,
        "bytes_total": 2048 * scale,
        "flops_training_total": 5e6 * scale,
        "seconds_per_epoch": 0.25 * scale,
    }


def test_table_with_ratios_and_spread() -> None:
    table = format_table(
        {"set": [result(0.8, 1), result(0.9, 1)], "dense": [result(0.7, 10)], "static": []},
        "classification",
    )
    head = "arm test accuracy connections memory FLOPs of training s/epoch"
    assert " ".join(table.splitlines()[0].split()) == head
    rows = {line.split()[0]: " ".join(line.split()) for line in table.splitlines()[2:]}
    assert rows["set"] == (
        "set 0.8500 ± 0.0707 1,000 (0.10x) 2.0 KiB (0.10x) 5 M (0.10x) 0.25 (0.10x)"
    )
    assert rows["dense"].startswith("dense 0.7000 10,000 (1.00x)")
    assert rows["static"] == "static diverged"


def test_without_a_dense_twin_there_are_no_ratios() -> None:
    assert "x)" not in format_table({"set": [result(0.8, 1)]}, "regression")


def test_units() -> None:
    assert [human_bytes(n) for n in (0, 1023, 1024, 3 * 2**30)] == [
        "0 B", "1023 B", "1.0 KiB", "3.0 GiB",
    ]  # fmt: skip
    assert [human_count(n) for n in (5, 1500, 2e15)] == ["5", "1.5 k", "2 P"]
