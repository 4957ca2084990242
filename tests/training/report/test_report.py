"""The page is whole, self-contained and honest, whatever state the run is in."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrow.training.errors import RunError
from regrow.training.report import write_report

MakeRun = Callable[..., Path]
VOID = {"br", "hr", "img", "meta"}
EVERY_SECTION = [
    "compare",
    "learning",
    "layers",
    "topology",
    "exploration",
    "inputs",
    "reproduce",
]


class Page(HTMLParser):
    """A parsed page; refuses what is not well nested or has an id twice."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.ids: set[str] = set()
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        if identity := found.get("id"):
            assert identity not in self.ids, f"id twice: {identity}"
            self.ids.add(identity)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    @property
    def headline(self) -> str:
        found = re.search(r"<h1>(.*?)</h1>", self.source)
        assert found
        return re.sub("<.*?>", "", found.group(1))

    @property
    def sections(self) -> list[str]:
        return [str(found["id"]) for tag, found in self.elements if tag == "section"]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag]


def report(run: Path) -> Page:
    return Page(write_report(run))


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_full_run_has_every_section(make_run: MakeRun) -> None:
    page = report(make_run())
    assert page.sections == EVERY_SECTION
    links = {found["href"] for found in page.all("a")}
    assert links == {f"#{name}" for name in EVERY_SECTION}


@pytest.mark.usefixtures("real_files")
def test_files_are_beside_the_page(make_run: MakeRun) -> None:
    run = make_run()
    assert write_report(run) == run / "report.html"
    names = {path.name for path in (run / "figures").iterdir()}
    assert {"score-by-epoch.png", "loss-by-seconds.png", "exploration.png"} <= names
    assert {"replaced.png", "input-map.png", "values-layers.0.png"} <= names
    assert all(path.read_bytes()[1:4] == b"PNG" for path in (run / "figures").iterdir())


def test_the_page_needs_nothing_else(make_run: MakeRun) -> None:
    page = report(make_run())
    assert "//" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page.source)
    assert page.all("script") == []
    assert page.all("link") == []
    assert all(str(found["src"]).startswith("data:image/png") for found in page.all("img"))
    assert "@import" not in page.source
    assert not re.search(r"url\((?!#)", page.source)


def test_the_page_is_accessible(make_run: MakeRun) -> None:
    page = report(make_run())
    assert all(found.get("alt") for found in page.all("img"))
    drawings = page.all("svg")
    assert drawings
    assert all(found["role"] == "img" and found["aria-label"] for found in drawings)
    assert all(found["scope"] in ("col", "row") for found in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert page.all("html")[0]["lang"] == "en"


def test_colours_of_pictures_follow_the_page(make_run: MakeRun) -> None:
    page = report(make_run())
    used = set(re.findall(r"var\(--([a-z]+)\)", page.source))
    style = page.source[: page.source.index("</style>")]
    light, dark = style.split("prefers-color-scheme: dark", 1)
    assert all(f"--{name}:" in light and f"--{name}:" in dark for name in used)
    for drawing in re.findall(r"<svg.*?</svg>", page.source, re.S):
        assert not re.search(r"(fill|stroke): #", drawing)


def test_a_second_report_replaces_the_first(make_run: MakeRun) -> None:
    run = make_run()
    first = write_report(run).read_text()
    (run / "figures" / "stale.png").touch()
    assert write_report(run).read_text() == first
    assert not (run / "figures" / "stale.png").exists()


def test_headline_of_a_sparse_run(make_run: MakeRun) -> None:
    page = report(make_run(best={"set": 0.80, "dense": 0.90}))
    assert re.match(
        r"Trained from scratch with 9\.3% of the connections: "
        r"(79|80)\.\d\d% ± \d\.\d\d test accuracy \(dense twin: (89|90)\.\d\d% ± \d\.\d\d\)\.",
        page.headline,
    )
    assert re.search(r"scores \d+\.\d\d points lower than its dense twin", page.text)
    assert "larger than the spread over seeds" in page.text


def test_a_slower_sparse_network_is_called_slower(make_run: MakeRun) -> None:
    page = report(make_run(seconds={"set": 8.0, "dense": 2.0}))
    assert re.search(r"an epoch is [34](\.\d)?× slower", page.text)


def test_a_better_sparse_network_is_called_better(make_run: MakeRun) -> None:
    page = report(make_run(best={"set": 0.95, "dense": 0.90}))
    assert "points higher than its dense twin" in page.text


def test_one_seed_is_said_to_be_few(make_run: MakeRun) -> None:
    page = report(make_run(seeds=1, best={"set": 0.89, "dense": 0.895}))
    assert "with so few seeds that can be chance" in page.text
    assert "±" not in page.text


def test_without_a_dense_twin(make_run: MakeRun) -> None:
    page = report(make_run(arms=["set", "static"]))
    assert page.sections == EVERY_SECTION
    assert "dense twin:" not in page.headline
    assert "No dense twin was trained beside it" in page.text
    assert "× faster" not in page.text


def test_a_dense_run_alone(make_run: MakeRun) -> None:
    page = report(make_run(arms=["dense"]))
    assert page.headline.startswith("Trained from scratch with all connections: ")
    assert page.sections == ["compare", "learning", "layers", "reproduce"]


def test_a_given_learning_rate(make_run: MakeRun) -> None:
    run = make_run(tuned=False)
    rewrite(run / "config.json", learning_rate=0.05)
    page = report(run)
    assert "The learning rate 0.05 was given, the same for every arm" in page.text


def test_tuned_learning_rates(make_run: MakeRun) -> None:
    run = make_run()
    content = json.loads((run / "tuning.json").read_text())
    content["chosen"]["dense"] = 0.2
    content["scores"]["static"]["0.01"] = None
    rewrite(run / "tuning.json", **content)
    page = report(run)
    assert "Each arm tried the same 3 learning rates for 3 epochs" in page.text
    assert "dense took the largest rate of the grid" in page.text
    assert "<td>diverged</td>" in page.source


def test_regression_has_no_percent_scores(make_run: MakeRun) -> None:
    page = report(make_run(task="regression", image_shape=None, sizes=(13, 20, 1)))
    assert "test R² 0.8" in page.headline
    assert "accuracy" not in page.text
    assert re.search(r"scores 0\.\d{3} (lower|higher)", page.text)
    assert "at the start" in page.text  # a table of features stands in for the map
    assert page.all("img") == []


def test_named_features(make_run: MakeRun) -> None:
    run = make_run(task="regression", image_shape=None, sizes=(13, 20, 1))
    rewrite(run / "dataset.json", feature_names=[f"column <{i}>" for i in range(13)])
    assert "column &lt;" in report(run).source


def test_names_of_users_are_escaped(make_run: MakeRun) -> None:
    evil = '<script>alert("x")</script>'
    run = make_run(class_names=[evil] * 3, name=f"{evil}.csv")
    rewrite(run / "config.json", command=f"regrow train {evil}", target=evil)
    rewrite(run / "dataset.json", notes=[evil])
    path = run / "arms" / "set" / "seed-0" / "result.json"
    content = json.loads(path.read_text())
    content["layers"][0] |= {"path": evil, "reason": evil, "kind": evil}
    rewrite(path, **content)
    page = report(run)
    assert page.all("script") == []
    assert evil in page.text


def test_an_arm_with_a_dollar_and_an_angle_is_drawn_as_it_is(make_run: MakeRun) -> None:
    page = report(make_run(arms=["a$<b>$c", "dense"]))
    assert page.all("b$") == []
    assert "a$<b>$c" in page.text


def test_an_unfinished_run_says_so(make_run: MakeRun) -> None:
    page = report(make_run(finished=4))
    assert page.headline.startswith("So far, from scratch with")
    assert "unfinished: 4 of 6 trainings have come to an end" in page.text
    assert "stands at epoch 3 of 6" in page.text
    assert "regrow train --resume" in page.text


def test_a_run_with_no_result_yet(make_run: MakeRun) -> None:
    page = report(make_run(finished=0))
    assert page.headline.startswith("So far")
    assert page.sections == ["compare", "learning", "exploration", "reproduce"]
    assert "unfinished, 3 epochs" in page.text


def test_a_run_that_has_only_begun(make_run: MakeRun) -> None:
    run = make_run()
    shutil.rmtree(run / "arms")
    for name in ("metrics.jsonl", "tuning.json", "dataset.json"):
        (run / name).unlink()
    page = report(run)
    assert page.headline == "Nothing has been trained in this run yet."
    assert page.sections == ["reproduce"]
    assert "dataset.json could not be read" in page.text


def test_an_arm_that_ran_away(make_run: MakeRun) -> None:
    run = make_run(diverged=["set"])
    for place in (run / "arms" / "set").iterdir():
        (place / "result.json").unlink()
        (place / "topology.npz").unlink()
        reason = {"reason": "training of set diverged in epoch 3 at learning rate 0.3"}
        (place / "diverged.json").write_text(json.dumps(reason))
    page = report(run)
    assert "Given up: training of set diverged in epoch 3" in page.text
    assert "2 of 2 seeds diverged" in page.text
    assert "unfinished" not in page.text


def test_scores_that_are_not_a_number(make_run: MakeRun) -> None:
    run = make_run(task="regression", diverged=["set"], image_shape=None)
    page = report(run)
    assert "no finite test score, the training diverged" in page.headline


def test_one_epoch_draws_no_curves(make_run: MakeRun) -> None:
    page = report(make_run(epochs=1, seeds=1))
    assert "One epoch draws no curve" in page.text
    assert "exploration" not in page.sections


def test_a_layer_with_one_connection(make_run: MakeRun) -> None:
    page = report(make_run(density=1e-9))
    assert "1 connections" in page.text
    assert "topology" in page.sections


def test_a_static_topology_did_not_move(make_run: MakeRun) -> None:
    run = make_run(arms=["static", "dense"])
    for place in (run / "arms" / "static").iterdir():
        with np.load(place / "topology.npz") as archive:
            arrays = dict(archive)
        for key in [key for key in arrays if "/start_" in key]:
            arrays[key.replace("start", "end")] = arrays[key]
        np.savez(place / "topology.npz", **arrays)
    page = report(run)
    assert "The topology did not change, so start and end are the same" in page.text
    assert "They did not move" in page.text


def test_forty_arms_and_forty_layers(make_run: MakeRun) -> None:
    arms = ["set", *(f"arm-{i}" for i in range(38)), "dense"]
    page = report(make_run(arms=arms, seeds=1, epochs=3, sizes=[64] + [6] * 40 + [3]))
    assert "6 of 40 sparse layers are shown" in page.text
    assert "Grey lines without a name are the other arms" in page.text
    assert all(f"arm-{i}" in page.text for i in range(38))


def test_many_arms_stand_best_first_beside_what_they_cost(make_run: MakeRun) -> None:
    scores = {"set": 0.5, "dense": 0.9, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.4, "f": 0.3}
    run = make_run(arms=list(scores), best=scores, seeds=3)
    page = report(run)
    table = page.source[page.source.index("arms many") :]
    found = re.findall(r'<th scope="row"><i.*?</i>([a-z]+)</th>', table)
    assert found[: len(scores)] == ["dense", "b", "c", "d", "set", "e", "f"]
    assert (run / "figures" / "score-and-seconds.png").exists()
    assert (run / "figures" / "score-and-flops.png").exists()
    shutil.rmtree(run)
    few = report(make_run(arms=["set", "dense"]))
    assert "score-and-seconds" not in few.source


def test_connections_are_drawn_where_their_number_changes(make_run: MakeRun) -> None:
    run = make_run(seeds=1)
    assert "Connections by epoch" not in report(run).source
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row["connections"] += 1000 // row["epoch"] if row["arm"] == "set" else 0
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "Connections by epoch: set ends at" in report(run).source


def test_text_is_told_of_in_bits(make_run: MakeRun) -> None:
    run = make_run(best={"set": 0.80, "dense": 0.90}, seeds=3)
    rewrite(run / "dataset.json", task="language")
    page = report(run)
    assert page.headline.startswith("Trained from scratch with 9.3% of the connections: 0.80")
    assert "bits per character in the test (dense twin: 0." in page.headline
    assert "bits fewer a character than its dense twin" in page.text
    assert "64 characters each, 10 different" in page.text
    assert 'Characters: "0123456789"' in page.text


def test_damaged_files_are_told_of(make_run: MakeRun) -> None:
    run = make_run(seeds=1)
    with (run / "metrics.jsonl").open("a") as lines:
        lines.write('{"arm": "set", "se')
    (run / "tuning.json").write_text("{")
    (run / "arms" / "set" / "seed-0" / "topology.npz").write_bytes(b"PK\x03\x04 torn")
    (run / "arms" / "static" / "seed-0" / "result.json").write_text("[]")
    page = report(run)
    assert "1 line(s) of metrics.jsonl could not be read." in page.text
    assert "topology.npz could not be read." in page.text
    assert "result.json could not be read." in page.text
    assert "tuning.json could not be read." in page.text


def test_a_repeated_epoch_counts_once(make_run: MakeRun) -> None:
    run = make_run()
    first = report(run).text
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(lines[:3])
    assert report(run).text == first


def test_the_command_is_rebuilt_from_the_options(make_run: MakeRun) -> None:
    run = make_run(name="digits")
    content = json.loads((run / "config.json").read_text())
    del content["command"]
    (run / "config.json").write_text(json.dumps({**content, "data": "my file.csv", "hidden": [5]}))
    text = report(run).text
    assert "regrow train 'my file.csv' --hidden 5 " in text
    assert "--compare static dense" in text


@pytest.mark.parametrize("what", ["a folder", "nothing", "a file"])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "place"
    if what == "a folder":
        folder.mkdir()
    elif what == "a file":
        folder.touch()
    with pytest.raises(RunError) as error:
        write_report(folder)
    expected = f"regrow report needs a run directory; {folder} has no config.json"
    assert str(error.value) == expected
    assert not (folder / "report.html").exists()
