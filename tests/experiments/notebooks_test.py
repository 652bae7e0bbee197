"""A notebook runs in a kernel, every cell twice in a row, and shows what is right."""

import copy
import json
import pathlib
import re

import jupytext
import nbclient
import nbformat
import numpy as np

_ROOT = pathlib.Path(__file__).parents[2]
_ASKED = """
import json
print(json.dumps({
    "found": result.found.tolist(),
    "sites": network.num_sites,
    "by_chip": jax.tree.leaves(jax.tree.map(float, by_chip)),
    "by_mask": by_mask.tolist(),
    "products": path["product"].tolist(),
    "losses": path["loss"].tolist(),
    "figures": list(result.figures),
}))
"""


def _executed(source, folder, monkeypatch):
    """Runs the code cells in `folder`, each once more behind itself; returns pairs.

    Then come what a last cell prints that asks for values.
    """
    notebook = jupytext.read(source)
    pairs = []
    for cell in (each for each in notebook.cells if each.cell_type == "code"):
        again = copy.deepcopy(cell)
        again["id"] = f"{cell['id']}-again"
        pairs.append((cell, again))
    last = nbformat.v4.new_code_cell(_ASKED)
    notebook.cells = [*(cell for pair in pairs for cell in pair), last]
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(
            name, str(folder / name)
        )  # no kernels or settings of a user's
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=where).execute()
    return pairs, json.loads(last.outputs[0].text)


def _shown(cell):
    """What a cell's last line is shown as."""
    return [each.data for each in cell.outputs if each.output_type == "execute_result"]


def _printed(cell):
    """What it prints, and the lines that are replaced as it goes on."""
    lines = []
    for each in cell.outputs:
        if each.output_type == "display_data":
            lines.append(each.data["text/plain"])
        if each.output_type == "stream":
            assert each.name == "stdout", each.text  # no warnings
            lines += each.text.splitlines()
    return lines


# One test, as the cells would run once more in each process that has one of several.
def test_first_steps(tmp_path, monkeypatch):
    source = _ROOT / "experiments/notebooks/first_steps.py"
    pairs, asked = _executed(source, tmp_path, monkeypatch)
    assert len(pairs) > 12
    for first, again in pairs:
        # The same cell again shows the same, but for addresses in what is not text.
        for one, other in zip(_shown(first), _shown(again), strict=True):
            kinds = {*one} - {"text/plain"} or {*one}
            assert {k: one[k] for k in kinds} == {k: other[k] for k in kinds}
        for lines in (_printed(first), _printed(again)):
            assert len(lines) <= 10  # one is replaced, and one a placement
            assert all(len(line) <= 100 for line in lines), lines

    assert asked["sites"] == len(asked["found"]) == len(asked["by_mask"]) == 4
    assert {*asked["found"]} <= {0, 1}
    assert np.isfinite([*asked["by_chip"], *asked["by_mask"]]).all()
    assert min(asked["by_mask"]) > 0  # every batch norm takes energy
    assert asked["by_chip"][0] > 0 > asked["by_chip"][2]  # of the clock, and of a lane
    products, losses = asked["products"], asked["losses"]
    assert np.isfinite(products).all()
    assert products[-1] < 0.5 * products[0]
    assert np.mean(losses[-10:]) < 0.5 * losses[0]

    every = [data for cell, _ in pairs for data in _shown(cell)]
    tables = "".join(data["text/html"] for data in every if "text/html" in data)
    for text in ("DigitNet/conv4", "gpu_clock_hz", "BO-N", "my accelerator"):
        assert text in tables
    assert sum("image/png" in data for data in every) == 3
    searching = [lines for pair in pairs for lines in map(_printed, pair) if lines]
    assert len(searching) == 4  # the search and its repetition, twice
    assert all(re.search(r"\b(\d+)/\1\b", lines[0]) for lines in searching)
    assert all("done before" in lines[0] for lines in searching[1:])
    assert all("report.html" in lines[-1] for lines in searching)
    folder = tmp_path / "runs/first_steps"
    assert {*asked["figures"]} == {path.stem for path in folder.glob("*.png")}
