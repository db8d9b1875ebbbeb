"""The CSV and the tables of evaluation records: their figures, order and marks."""

import pytest

from partzoo.errors import UsageError
from partzoo.evaluate.report import COLUMNS, label, read_csv, rows, table, write_csv

COMMAND = "partzoo eval toy --protocol faces68 --data DIR"


def record(model: str, runs: list, **changes) -> dict:
    """Return a result in the form that the runner writes; runs are (k, seed, metrics)."""
    named = [{"k": k, "seed": seed, "metrics": metrics, "seconds": 1.0} for k, seed, metrics in runs]
    fixed = {"format": 1, "protocol": "faces68", "split": "report", "setting": "default", "images": 489}
    return fixed | {"model": model, "command": COMMAND, "hardware": {}, "runs": named} | changes


def lines(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]


def test_seeds_become_mean_and_sample_standard_deviation():
    runs = [(8, 0, {"nmi5": 1.0}), (8, 1, {"nmi5": 3.0}), (8, 2, {"nmi5": 5.0})]
    (row,) = rows([record("toy", runs)])
    assert (row.mean, row.std, row.seeds, row.images, row.k) == (3.0, 2.0, 3, 489, 8)


def test_one_seed_has_no_standard_deviation():
    (row,) = rows([record("toy", [(None, 0, {"knn": 12.5})])])
    assert (row.k, row.mean, row.std, row.seeds) == (None, 12.5, None, 1)


def test_a_figure_without_a_seed_is_one_value():
    runs = [(8, 0, {"nmi5": 1.0}), (8, 1, {"nmi5": 3.0}), (8, None, {"stability_nmi": 70.0})]
    found = {row.metric: row for row in rows([record("toy", runs)])}
    assert (found["stability_nmi"].std, found["stability_nmi"].seeds, found["nmi5"].seeds) == (None, 1, 2)


def test_what_is_read_is_what_was_written(tmp_path):
    runs = [(16, 0, {"nmi5": 100 / 3, "nme": 9.0}), (4, 0, {"nmi5": 2 / 3}), (4, 1, {"nmi5": 1 / 3})]
    records = [record("random-weights", runs), record("b", runs), record("a", runs, command='odd, "quoted"')]
    written = write_csv(records, tmp_path / "results" / "faces68.csv")
    assert read_csv(tmp_path / "results" / "faces68.csv") == written
    assert list(dict.fromkeys(row.model for row in written)) == ["a", "b", "random-weights"]
    assert [row.k for row in written if row.model == "a"] == [4, 16, 16]
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["faces68.csv"]


def test_the_order_of_records_and_runs_does_not_change_the_file(tmp_path):
    runs = [(4, 0, {"nmi5": 0.1}), (4, 1, {"nmi5": 0.2}), (4, 2, {"nmi5": 0.4}), (8, 0, {"nmi5": 3.0})]
    write_csv([record("a", runs), record("b", runs)], tmp_path / "1.csv")
    write_csv([record("b", runs), record("a", runs[::-1])], tmp_path / "2.csv")
    assert (tmp_path / "1.csv").read_text() == (tmp_path / "2.csv").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "result of 'b' was written by a newer version of partzoo"),
        ({"format": None}, "format None, not 1"),
        ({"protocol": "cub"}, "one protocol"),
        ({"split": "dev"}, "one protocol and split"),
        ({"model": "a"}, "two results of a"),
    ],
)
def test_records_that_do_not_belong_together_are_refused(changes, words):
    runs = [(8, 0, {"nmi5": 1.0})]
    with pytest.raises(UsageError, match=words):
        rows([record("a", runs), record("b", runs) | changes])


def test_a_table_with_columns_of_a_newer_partzoo_says_so(tmp_path):
    written = write_csv([record("a", [(8, 0, {"nmi5": 1.0})])], tmp_path / "faces68.csv")
    assert len(written) == 1
    head, line = (tmp_path / "faces68.csv").read_text().splitlines()
    (tmp_path / "faces68.csv").write_text(f"{head},device\n{line},gpu\n")
    with pytest.raises(UsageError, match=r"faces68\.csv has the column 'device'.* Upgrade partzoo"):
        read_csv(tmp_path / "faces68.csv")


def test_an_absent_table_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(UsageError, match="partzoo eval --all --protocol faces68 --data DIR"):
        read_csv(tmp_path / "faces68.csv")


@pytest.mark.parametrize("text", ["model,k\na,8\n", ",".join(COLUMNS) + "\na,default,8,nmi5,x,,1,489,c\n"])
def test_a_damaged_table_is_refused(tmp_path, text):
    (tmp_path / "faces68.csv").write_text(text)
    with pytest.raises(UsageError, match="not a table of results"):
        read_csv(tmp_path / "faces68.csv")


def test_the_best_of_each_k_is_bold_and_floors_are_marked_and_last():
    floor = record("colour-position", [(4, 0, {"nmi5": 50.0, "nme": 30.0}), (8, 0, {"nmi5": 10.0, "nme": 9.0})])
    model = record("toy", [(4, 0, {"nmi5": 40.0, "nme": 20.0}), (8, 0, {"nmi5": 20.0, "nme": 8.0})])
    assert lines(table(rows([floor, model]), ("nmi5", "nme"))) == [
        ["model", "K", "NMI 5", "NME", "seeds"],
        ["---"] * 5,
        ["`toy`", "4", "40.0", "**20.0**", "1"],
        ["floor: `colour-position`", "4", "**50.0**", "30.0", "1"],
        ["`toy`", "8", "**20.0**", "**8.0**", "1"],
        ["floor: `colour-position`", "8", "10.0", "9.0", "1"],
    ]


def test_deviation_settings_constant_predictor_and_gaps_are_shown():
    first = record("a", [(None, 0, {"knn": 2.84, "mse_x": 8.027, "constant_mse_x": 8.03}), (None, 1, {"knn": 2.86})])
    second = record("a", [(None, 0, {"knn": 3.0})], setting="layer 6")
    assert lines(table(rows([second, first]), ("knn", "mse_x"))) == [
        ["model", "setting", "kNN", "MSE x", "seeds"],
        ["---"] * 5,
        ["`a`", "default", "2.9 ± 0.0", "8.03 (8.03)", "2"],
        ["`a`", "layer 6", "**3.0**", "", "1"],
    ]


def test_bounds_are_means_over_seeds_and_shown_in_place_of_deviations(tmp_path):
    measured = record("a", [(8, 0, {"nme": 30.0}), (8, 1, {"nme": 32.0}), (8, 2, {"nme": 34.0})])
    for run, bounds in zip(measured["runs"], ([27, 33], [28, 35], [29, 40]), strict=True):
        run["intervals"] = {"nme": bounds}
    (row,) = write_csv([measured], tmp_path / "faces68.csv")
    assert (row.low, row.high) == (28, 36) and read_csv(tmp_path / "faces68.csv") == [row]
    assert lines(table([row], ["nme"], intervals=True))[2] == ["`a`", "8", "32.0 [28.0, 36.0]", "3"]


def test_nothing_is_best_where_neither_way_is_better():
    figures = rows([record("a", [(8, 0, {"presence": 90.0})]), record("b", [(8, 0, {"presence": 80.0})])])
    assert "**" not in table(figures, ("presence",))


def test_labels_are_words():
    names = ["fg_nmi5", "ari68", "stability_ari", "linear_sgd", "mse_x", "kappa"]
    assert [label(name) for name in names] == [
        "FG-NMI 5", "ARI 68", "stability ARI", "linear (SGD)", "MSE x", "kappa",
    ]  # fmt: skip
