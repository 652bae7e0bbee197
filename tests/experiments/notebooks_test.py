"""Every cell of a notebook runs in a kernel, twice in a row, and shows the same."""

import copy
import json
import pathlib

import jupytext
import nbclient
import nbformat
import numpy as np
import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_FIRST_STEPS = _ROOT / "experiments/notebooks/first_steps.py"
_ASKED = """
import json
json.dumps({
    "found": result.found.tolist(),
    "sites": network.num_sites,
    "by_chip": jax.tree.leaves(jax.tree.map(float, by_chip)),
    "by_mask": by_mask.tolist(),
    "products": path["product"].tolist(),
    "losses": path["loss"].tolist(),
    "saved": result.figures["pareto_energy"].name,
})
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Code cells in order, each once more behind itself; and a last one that asks."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = jupytext.read(_FIRST_STEPS)
    twice = []
    for cell in (each for each in notebook.cells if each.cell_type == "code"):
        again = copy.deepcopy(cell)
        again["id"] = f"{cell['id']}-again"
        twice += [cell, again]
    notebook.cells = [*twice, nbformat.v4.new_code_cell(_ASKED)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(_ROOT))
        for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(folder / name))  # no kernels or settings of a user's
        client = nbclient.NotebookClient(
            notebook, timeout=300, resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
    return folder, notebook.cells


def _shown(cell):
    """What a cell's last line is shown as."""
    return [each.data for each in cell.outputs if each.output_type == "execute_result"]


def test_no_cell_complains(executed):
    for cell in executed[1]:
        kinds = {(each.output_type, each.get("name")) for each in cell.outputs}
        assert kinds <= {("execute_result", None), ("stream", "stdout")}, cell.outputs


def test_the_same_cell_again_shows_the_same(executed):
    cells = executed[1][:-1]
    assert len(cells) > 20
    for first, again in zip(cells[::2], cells[1::2], strict=True):
        # Addresses in what has no better text differ.
        keep = [
            {
                kind: x
                for kind, x in data.items()
                if kind != "text/plain" or len(data) == 1
            }
            for data in _shown(first) + _shown(again)
        ]
        half = len(keep) // 2
        assert keep[:half] == keep[half:], first.source


def test_what_it_shows_is_right(executed):
    folder, cells = executed
    asked = json.loads(eval(_shown(cells[-1])[0]["text/plain"]))
    assert asked["sites"] == len(asked["found"]) == len(asked["by_mask"]) == 4
    assert set(asked["found"]) <= {0, 1}
    assert np.isfinite([*asked["by_chip"], *asked["by_mask"]]).all()
    assert np.min(asked["by_mask"]) > 0  # every batch norm takes energy
    assert asked["by_chip"][0] > 0 > asked["by_chip"][2]  # the clock's, and the lanes'
    products, losses = asked["products"], asked["losses"]
    assert np.isfinite(products).all()
    assert products[-1] < 0.5 * products[0]
    assert np.mean(losses[-10:]) < 0.5 * losses[0]
    assert (folder / f"runs/first_steps/{asked['saved']}.png").exists()
    assert (folder / "runs/first_steps/report.html").exists()


def test_tables_and_figures_are_shown(executed):
    shown = [data for cell in executed[1] for data in _shown(cell)]
    tables = [data["text/html"] for data in shown if "text/html" in data]
    assert any("BO-N" in each and "my accelerator" in each for each in tables)
    assert any("DigitNet/conv4" in each for each in tables)
    assert any("gpu_clock_hz" in each for each in tables)
    assert sum("image/png" in data for data in shown) == 6  # three figures, twice


def test_a_search_prints_a_few_short_lines(executed):
    for cell in executed[1]:
        text = "".join(each.text for each in cell.outputs if "name" in each)
        lines = [line.rpartition("\r")[2].rstrip() for line in text.splitlines()]
        assert len(lines) <= 12, lines
        assert all(len(line) <= 100 for line in lines)
