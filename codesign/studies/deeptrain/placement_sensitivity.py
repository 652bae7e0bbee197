"""What would change with a little more of each knob, and with each batch norm."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from codesign import units
from codesign.objective import Sensitivity, sensitivities, toggled
from codesign.report import Column, Table
from codesign.studies.deeptrain.placement_result import PlacementResult, image_costs

_TITLES = {
    **{"period_s": "Period", "latency_s": "Latency"},
    **{"energy_j": "Energy", "area_m2": "Area"},
}


def _signed(percent: float | None) -> str:
    """Two decimals; what rounds to nothing is 0, and what nobody knows a dash."""
    if percent is None:
        return units.NO_VALUE
    return f"{percent:+.2f}".replace("-", "−") if abs(percent) >= 0.005 else "0"


def find(result: PlacementResult) -> list[Sensitivity]:
    """Of what was found, the strongest knob first; none of an earlier journal."""
    row = result.rows["bo_n"]
    if row.metrics is None:
        return []
    known = row.metrics.costs
    time = "period_s" if "period_s" in known else "latency_s"
    names = [n for n in (time, "energy_j", "area_m2") if n in known]
    found = sensitivities(
        result.chip,
        result.ops.masked(jnp.asarray(row.mask, jnp.float32)),
        known,
        row.metrics.cost_gradients,
        batch_size=row.batch_size,
        names=names,
    )
    return sorted(found, key=lambda each: -sum(map(abs, each.smooth.values())))


def knob_table(result: PlacementResult, found: list[Sensitivity]) -> Table:
    """1 % more of each knob, by the smooth model and by the exact one."""
    names = list(found[0].smooth) if found else []
    columns: list[Column | str] = ["Knob", Column("Value", justify="right")]
    for name in names:
        columns += [Column(_TITLES[name], "%", _signed), Column("exact", "%", _signed)]
    table = Table(
        f"What 1 % more of each knob of {result.chip.name} changes",
        columns,
        footnotes=[
            "At the placement that was found. Left: the smooth model's gradient, which "
            "every training step returns. exact: secants of the exact model over "
            "±1 %, of counts (*) over a factor of 1.5 both ways.",
        ],
    )
    for each in found:
        knob = each.knob
        cells = [(each.smooth[name], each.exact[name]) for name in names]
        table.add(
            knob.name + "*" * knob.is_count,
            units.quantity(knob.value, knob.unit),
            *(value for pair in cells for value in pair),
        )
    return table


def site_table(result: PlacementResult) -> Table:
    """Each site's batch norm: what the loss says of it, and what it costs."""
    row = result.rows["bo_n"]
    assert row.metrics is not None
    costs, gradients = row.metrics.costs, row.metrics.cost_gradients
    time = "period_s" if "period_s" in costs else "latency_s"
    table = Table(
        "What a batch norm at each site changes",
        [
            "Site",
            Column("Kept", justify="right"),
            Column("Loss by mask", format=lambda g: f"{g:+.2g}".replace("-", "−")),
            *(Column(name, "%", _signed) for name in ("Period", "exact")),
            *(Column(name, "%", _signed) for name in ("Energy", "exact")),
        ],
        footnotes=[
            "Loss by mask: gradient of the training loss by the site's entry, mean of the "
            "last epoch; below 0, more of the norm would lower the loss. Period and "
            "energy: what putting it in, or taking it out where it is kept, changes; "
            "left by the smooth gradient, exact by the exact model.",
        ],
    )
    base = image_costs(row.cost, row.batch_size)
    mask = row.mask
    moved = toggled(
        result.chip, result.ops, jnp.asarray(mask), batch_size=row.batch_size
    )
    loss = np.asarray(row.metrics.loss_mask_gradient)
    for site, cost in enumerate(moved):
        by, there = 1 - 2 * int(mask[site]), image_costs(cost, row.batch_size)
        cells = []
        for name, shown in ((time, "period_s"), ("energy_j", "energy_j")):
            slope = float(gradients[name].bn_mask[site])
            smooth = by * slope / float(costs[name]) if costs[name] else 0.0
            exact = there[shown] / base[shown] - 1 if base[shown] else 0.0
            cells += [100 * smooth, 100 * exact]
        table.add(
            f"C{site + 1}", "yes" if mask[site] else "no", float(loss[site]), *cells
        )
    return table


def extras(found: list[Sensitivity]) -> list[dict[str, Any]]:
    """As results.json holds it."""
    return [
        {
            **{"knob": each.knob.name, "value": each.knob.value},
            **{"unit": each.knob.unit, "is_count": each.knob.is_count},
            **{"smooth": each.smooth, "exact": each.exact},
        }
        for each in found
    ]
