"""Ten networks counted by hand, and how peers stand in the tables beside them."""

import inspect
import sys
import types

import pytest

from codesign.models.counted import NETWORKS
from codesign.studies.speed import trace_peers

_OURS = ("our rules", "our gradient")
_QUICK = ("lstm", "unet", "dcgan")


@pytest.fixture
def only(monkeypatch):
    """Leaves out all counters but ours and those that are named."""

    def keep(*peers):
        kept = {name: trace_peers._COUNTERS[name] for name in (*_OURS, *peers)}
        monkeypatch.setattr(trace_peers, "_COUNTERS", kept)

    return keep


@pytest.fixture
def neural_cost(monkeypatch):
    """A peer that counts 300 FLOPs forward, and 600 more with the gradient."""

    class Adapter:
        def operations(self, fn, args):
            kinds = {"matmul": 300.0, "elementwise": 7.0}
            if not inspect.ismethod(fn):  # the loss with its gradient
                kinds["conv2d"] = 600.0
            return [types.SimpleNamespace(kind=k, flops=n) for k, n in kinds.items()]

    adapters = types.SimpleNamespace(JaxAdapter=Adapter)
    estimates = types.SimpleNamespace(estimate_operation=lambda op: op)
    monkeypatch.setitem(sys.modules, "neural_cost.adapters.jax", adapters)
    monkeypatch.setitem(sys.modules, "neural_cost.estimate", estimates)


def _counted(name):
    rows = trace_peers.count(name, "one example", 3, 0)
    assert all(trace_peers.is_ours(row) for row in rows)
    return rows, {row.key: row.value for row in rows}


def _check_ours(name):
    network, (rows, values) = NETWORKS[name](), _counted(name)
    for counter, spare in zip(_OURS, (0, network.spare), strict=True):
        assert values[f"forward_macs[{name},{counter}]"] == network.forward
        assert values[f"gradient_macs[{name},{counter}]"] == network.backward + spare
    assert (rows[-1].key, rows[-1].value) == (f"our_wrong_macs[{name}]", 0)
    assert rows[-1].verdict == "met"


@pytest.mark.parametrize("name", _QUICK)
def test_our_counts_are_those_by_hand(only, name):
    only()
    _check_ours(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - set(_QUICK)))
def test_our_counts_are_those_by_hand_everywhere(only, name):
    only()
    _check_ours(name)


def test_counts_by_hand():
    # 16 taps of 100 x 64, 64 x 32 and 32 x 3, where 1, 16 and 64 positions go in.
    generator = NETWORKS["dcgan"]()
    assert generator.products == (102_400, 16 * 16 * 2048, 64 * 16 * 96)
    assert generator.backward == 2 * generator.forward - 102_400
    # A stem, four convolutions of 64 channels on 32x32; then three stages of one that
    # halves the map, its 1x1 beside it and three of as much as before; and a classifier.
    stages = 18_874_368 + 2_097_152 + 3 * 37_748_736
    forward = 1_769_472 + 4 * 37_748_736 + 3 * stages + 5120
    assert NETWORKS["resnet18"]().forward == forward


def test_a_peer_stands_beside_the_counts_by_hand(only, neural_cost):
    only("neural-cost")
    rows, values = _counted("dcgan")
    # FLOPs of products and convolutions, halved; the gradient's are what it adds.
    assert values["forward_macs[dcgan,neural-cost]"] == 150
    assert values["gradient_macs[dcgan,neural-cost]"] == 300
    network = NETWORKS["dcgan"]()
    wrong = network.forward + network.backward - 450
    assert values["wrong_macs[dcgan,neural-cost]"] == wrong
    assert rows[-1].peer == ("neural-cost", wrong)
    right, times = trace_peers.tables(rows)
    assert [row.cells[:3] for row in right.rows] == [
        ("dcgan", "right", "right"),
        ("all", "1 of 1", "1 of 1"),
    ]
    assert [row.cells[3] for row in right.rows] == ["0.000207/0.000223", "0 of 1"]
    assert len(right.footnotes) == 1
    assert all(seconds > 0 for seconds in times.rows[0].cells[1:])


def test_a_peer_that_is_absent_is_a_note(only, monkeypatch):
    only("neural-cost", "XLA's cost_analysis", "flax's tabulate")
    monkeypatch.setitem(sys.modules, "neural_cost.adapters.jax", None)
    rows, values = _counted("dcgan")
    assert values["forward_macs[dcgan,neural-cost]"] is None
    assert rows[-1].peer == ("neural-cost", None)
    right, times = trace_peers.tables(rows)
    absent = [row.cells[3] for row in (*right.rows, *times.rows)]
    assert absent == [None] * 3  # not "0 of 1", which would say that it is wrong
    assert right.footnotes[1].startswith("neural-cost: ModuleNotFoundError: ")
    # XLA's count leaves taps on padding out, so it is below the rule.
    xla, flax = (
        values[f"forward_macs[dcgan,{peer}]"]
        for peer in ("XLA's cost_analysis", "flax's tabulate")
    )
    assert 0.7 < xla / NETWORKS["dcgan"]().forward < 1
    assert flax == pytest.approx(xla, rel=0.01)


def test_no_tables_without_counts():
    assert trace_peers.tables([]) == []


def test_our_own_failure_is_no_note(only, monkeypatch):
    only()

    def fault(network, args):
        raise RuntimeError("a fault of ours")

    monkeypatch.setitem(trace_peers._COUNTERS, "our rules", fault)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        trace_peers.count("dcgan", "one example", 3, 0)
