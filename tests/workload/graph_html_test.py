"""What a notebook shows of a workload."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from codesign.workload.graph import Op, build
from tests.records.html_test import EVIL, Reader
from tests.workload import graphs


def _rows(ops):
    return Reader(ops._repr_html_()).rows


def test_ops_and_sums_by_hand():
    # chain: 8 -> dense 8 x 8 -> relu -> dense 8 x 4: 64 + 32 MACs and weights.
    assert _rows(graphs.chain()) == [
        ["Op", "Kind", "Input → output", "MACs", "Weights", "Site"],
        ["a", "dense", "8 → 8", "64", "64", ""],
        ["r", "activation relu", "8 → 8", "", "", ""],
        ["b", "dense", "8 → 4", "32", "32", ""],
        ["Sum", "", "", "96", "96", ""],
    ]


def test_norms_have_their_site_and_loops_their_runs():
    norm = Op(name="n", kind="norm", operands=(-1,), input_shape=(4, 4, 8),
              output_shape=(4, 4, 8), site=0)  # fmt: skip
    product = Op(name="p", kind="matmul", operands=(0,), output_shape=(2,), macs=1000,
                 repeats=25)  # fmt: skip
    _, first, second, total = _rows(build([norm, product], inputs=[(4, 4, 8)]))
    assert first == ["n", "norm", "4×4×8 → 4×4×8", "", "16", "0"]  # scale and bias
    assert second == ["p", "matmul", "→ 2", "25 k", "", ""]
    assert total == ["Sum", "", "", "25 k", "16", "1 in all"]


def test_shared_weights_count_once_in_the_sum():
    ops = [graphs.dense("a", -1, 8, 8, "w"), graphs.dense("b", 0, 8, 8, "w")]
    shared = build(ops, inputs=[(8,)], parameters={"w": 64})
    *rows, total, note = _rows(shared)
    assert [row[4] for row in rows[1:]] == ["64", "64"]
    assert total[3:5] == ["128", "64"]
    assert note == ["Weights that ops share are counted once in the sum."]


def test_hundreds_of_ops_are_folded():
    ops = [graphs.point(f"op{i}", "activation", (i - 1,), 2) for i in range(300)]
    rows = _rows(build(ops, inputs=[(2,)]))
    assert len(rows) < 30
    assert rows[1][0] == "op0"
    assert rows[-2][0] == "op299"
    (folded,) = (row[0] for row in rows if len(row) == 1)
    assert folded == f"⋮ {301 - (len(rows) - 2)} more"


def test_names_are_only_text():
    hostile = build([graphs.point(EVIL, "activation", (-1,), 2)], inputs=[(2,)])
    page = hostile._repr_html_()
    assert "script" not in Reader(page).tags
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_traced_ones_are_shown_too(transform):
    ops, shown = graphs.chain(), []

    def look(scale):
        shown.append(dataclasses.replace(ops, macs=ops.macs * scale)._repr_html_())
        return scale

    transform(look)(jnp.ones(3))
    assert shown == [ops._repr_html_()]


def test_an_empty_one():
    assert _rows(build([]))[1:] == [["Sum", "", "", "0", "0", ""]]
