"""The 14 observations of the paper's Chapter 5 as checks of our own numbers.

Where the paper leaves a number vague, the threshold is ours and stands in the check.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from codesign.hardware.memory import SYSTEMS
from codesign.report import Quantity
from codesign.studies.memory.capacity_measure import BASE, HBM
from codesign.studies.memory.capacity_result import NetworkSweep, NotRun, ran
from codesign.studies.memory.memory_published import (
    captured,
    knee_mb,
    speedup,
    speedup_bound,
    time_drop,
    traffic_drop,
    type_ii_share,
)
from codesign.studies.memory.paper_networks import (
    GNMT,
    MOBILENET,
    RESNET,
    TRANSFORMER,
)
from codesign.workload.load import label

_EVERY = (RESNET, MOBILENET, GNMT, TRANSFORMER)
_HEAVY = (RESNET, TRANSFORMER)  # that the paper calls compute-bound
_COMPUTE_RICH = (RESNET, TRANSFORMER, GNMT)  # with enough compute-bound layers

Found = dict[str, NetworkSweep]  # by the paper's network
Check = Callable[[Found], tuple[bool, str]]
_CHECKS: list[tuple[str, str, Check]] = []


@dataclasses.dataclass(frozen=True)
class Observation:
    """One observation held against our numbers.

    Attributes:
        number: In the paper.
        claim: Its heading.
        holds: None where networks or capacities that it speaks of were not run.
        evidence: The numbers.
        rule: What was asked of them.
    """

    number: int
    claim: str
    holds: bool | None
    evidence: str
    rule: str

    @property
    def verdict(self) -> str:
        """As it is printed."""
        words = {True: "holds", False: "does not hold", None: "not run"}
        return words[self.holds]

    @property
    def quantity(self) -> Quantity:
        """As results.json has it; without a published value where it was not run."""
        return Quantity(
            f"observation_{self.number}",
            self.holds,
            kind="derived",
            paper=None if self.holds is None else True,
            source=f"Obs. {self.number}",
            title=self.claim,
            note=f"{self.claim}: {self.evidence} (asked: {self.rule})",
        )


def check_all(sweeps: Sequence[NetworkSweep]) -> list[Observation]:
    """All 14, in order. Keras's own ResNet-50 and MobileNetV2 go before ours."""
    by_preference = sorted(sweeps, key=lambda each: each.network.startswith("keras:"))
    found = {each.family: each for each in by_preference if each.family}
    checked = []
    for number, (claim, rule, check) in enumerate(_CHECKS, start=1):
        try:
            holds, evidence = check(found)
        except NotRun as missing:
            holds, evidence = None, str(missing)
        checked.append(Observation(number, claim, holds, evidence, rule))
    return checked


def ridge_point() -> float:
    """Operations per byte where the RTX 2080 Ti's two bounds meet, eq. 3.2."""
    spec = SYSTEMS["RTX 2080 Ti"]
    return float(spec.throughput_ops_per_s) / float(spec.bandwidth_bytes_per_s)


def _observation(claim: str, rule: str) -> Callable[[Check], Check]:
    """Adds a check as the next observation: what the paper claims, what we ask."""

    def add(check: Check) -> Check:
        _CHECKS.append((claim, rule, check))
        return check

    return add


def _get(found: Found, *families: str) -> Found:
    missing = [label(family) for family in families if family not in found]
    if missing:
        raise NotRun(f"needs {' and '.join(missing)} at the paper's batch")
    return {family: found[family] for family in families}


def _each(
    found: Found, families: Sequence[str], number: Callable[[NetworkSweep], float]
) -> dict[str, float]:
    return {name: number(each) for name, each in _get(found, *families).items()}


def _list(values: dict[str, float], form: str) -> str:
    """Writes "ResNet-50 76.0%, GNMT 98.0%" for the form "{:.1%}"."""
    return _join({name: form.format(value) for name, value in values.items()})


def _join(texts: dict[str, str]) -> str:
    return ", ".join(f"{label(name)} {text}" for name, text in texts.items())


@_observation(
    "Reuse frequency varies vastly among layers",
    "largest over smallest at least 100× in every network",
)
def _reuse_varies(found: Found) -> tuple[bool, str]:
    def spread(each: NetworkSweep) -> float:
        frequency = each.layers.reuse_frequency
        return float(frequency.max() / frequency.min())

    spreads = _each(found, _EVERY, spread)
    return min(spreads.values()) >= 100, _list(spreads, "{:,.0f}×")


@_observation(
    "ResNet and Transformer tend to compute-bound, MobileNet and GNMT to memory-bound",
    "type-I layers above the ridge point: over half, and under two thirds",
)
def _two_tendencies(found: Found) -> tuple[bool, str]:
    def compute_bound(each: NetworkSweep) -> float:
        type_i = each.layers.reuse_frequency[~each.layers.is_type_ii]
        return float(np.mean(type_i > ridge_point()))

    share = _each(found, _EVERY, compute_bound)
    heavy = all(share[name] > 0.5 for name in _HEAVY)
    light = all(share[name] < 2 / 3 for name in (MOBILENET, GNMT))
    return heavy and light, _list(share, "{:.0%}")


@_observation(
    "Adjacent-layer and block reuse save around 70 % of the traffic",
    "60 to 80 % at the knees and at 128 MB; 90 % of both captured by 180 MB",
)
def _block_reuse_saves(found: Found) -> tuple[bool, str]:
    def drop(each: NetworkSweep) -> float:
        high_mb = 128 if each.family == TRANSFORMER else knee_mb(each)
        return traffic_drop(each, 24, high_mb)

    drops = _each(found, (RESNET, MOBILENET, TRANSFORMER), drop)
    part = captured(found[TRANSFORMER], 180, "adjacent", "block")
    holds = all(0.6 <= each <= 0.8 for each in drops.values()) and part >= 0.9
    evidence = _list(drops, "{:.1%}")
    return holds, f"{evidence}; Transformer at 180 MB captures {part:.1%} of both"


@_observation(
    "Recurrent weight reuse dominates the traffic of RNNs",
    "traffic falls by at least 90 %, over half of it by recurrent weights",
)
def _weights_dominate(found: Found) -> tuple[bool, str]:
    gnmt = _get(found, GNMT)[GNMT]
    drop, reuse = traffic_drop(gnmt, 24, 500), ran(gnmt.reuse)
    gains = {
        scope: (captured(gnmt, 500, scope) - captured(gnmt, 24, scope))
        * float(possible)
        for scope, possible in zip(reuse.scopes, reuse.possible_bytes, strict=True)
    }
    part = gains["recurrent weight"] / sum(gains.values())
    return (
        drop >= 0.9 and part > 0.5,
        f"traffic falls by {drop:.1%} from 24 to 500 MB, {part:.1%} of it by recurrent "
        "weight reuse",
    )


@_observation(
    "Computation-intensive networks cannot use more throughput at existing caches",
    "at 24 MB at most two thirds of what the throughput allows",
)
def _throughput_is_wasted(found: Found) -> tuple[bool, str]:
    gains = _each(found, _HEAVY, lambda each: speedup(each, 24) - 1)
    bound = speedup_bound(found[RESNET]) - 1
    holds = max(gains.values()) <= 2 / 3 * bound
    return holds, f"{_list(gains, '+{:.1%}')} of +{bound:.0%}"


@_observation(
    "Forward-backward reuse helps little for most networks",
    "400 to 1000 MB saves at most 5 % of time; speed-up within 10 % of its bound",
)
def _flat_beyond_400(found: Found) -> tuple[bool, str]:
    holds, texts = True, {}
    for family, each in _get(found, *_COMPUTE_RICH).items():
        drop = time_drop(each, 400, 1000)
        reached, bound = speedup(each, 1000), speedup_bound(each)
        holds &= drop <= 0.05 and reached >= 0.9 * bound
        texts[family] = f"−{drop:.1%} of time, speed-up {reached:.2f} of {bound:.2f}"
    return holds, _join(texts)


@_observation(
    "Forward-backward reuse still helps light networks",
    "400 to 1000 MB saves at least 10 % of MobileNet's time",
)
def _light_still_gains(found: Found) -> tuple[bool, str]:
    drop = time_drop(_get(found, MOBILENET)[MOBILENET], 400, 1000)
    return drop >= 0.1, f"its time falls by {drop:.1%} from 400 to 1000 MB"


@_observation(
    "Memory-bound networks are more sensitive to capacity",
    "24 to 500 MB saves more of MobileNet and GNMT than of the other two",
)
def _memory_bound_gain_more(found: Found) -> tuple[bool, str]:
    drops = _each(found, _EVERY, lambda each: time_drop(each, 24, 500))
    light = min(drops[MOBILENET], drops[GNMT])
    heavy = max(drops[name] for name in _HEAVY)
    return light > heavy, _list(drops, "−{:.1%}")


@_observation(
    "The cache must be large to be effective for RNNs",
    "+71 % throughput gives under 10 % at 24 MB, and over three times as much at 500 MB",
)
def _rnn_needs_room(found: Found) -> tuple[bool, str]:
    gnmt = _get(found, GNMT)[GNMT]
    low, high = speedup(gnmt, 24) - 1, speedup(gnmt, 500) - 1
    holds = low < 0.1 and high >= 3 * max(low, 0.1)
    return holds, f"+{low:.1%} at 24, +{high:.1%} at 500 MB"


@_observation(
    "With enough compute-bound layers a large cache replaces bandwidth",
    "1555 over 616 GB/s: the gap closes to at most 1.15×",
)
def _cache_for_bandwidth(found: Found) -> tuple[bool, str]:
    holds, texts = True, {}
    for family, each in _get(found, *_COMPUTE_RICH).items():
        low, high = speedup(each, 24, HBM), speedup(each, 1000, HBM)
        holds &= high < low and high <= 1.15
        texts[family] = f"{low:.2f}× at 24, {high:.2f}× at 1000 MB"
    return holds, _join(texts)


@_observation(
    "Capacity helps little against the bandwidth eagerness of light networks",
    "1555 over 616 GB/s: MobileNet's gap stays at least 1.3×, the widest of all",
)
def _light_stays_hungry(found: Found) -> tuple[bool, str]:
    mobilenet = _get(found, MOBILENET)[MOBILENET]
    gap = speedup(mobilenet, 1000, HBM)
    traffic = traffic_drop(mobilenet, 24, knee_mb(mobilenet))
    return (
        gap >= 1.3 and gap == max(speedup(each, 1000, HBM) for each in found.values()),
        f"HBM still gives {gap:.2f}× at 1000 MB, although traffic falls by {traffic:.1%}",
    )


@_observation(
    "Point-wise layers take a part of the time at existing caches",
    "at least 10 % at 24 MB",
)
def _pointwise_take_time(found: Found) -> tuple[bool, str]:
    shares = _each(found, _HEAVY, lambda each: type_ii_share(each, 24))
    return min(shares.values()) >= 0.1, _list(shares, "{:.1%}")


@_observation(
    "Transfers of point-wise layers are almost hidden once a block fits",
    "90 % of their stalls gone at 400 MB, half of the saved time theirs",
)
def _pointwise_hidden(found: Found) -> tuple[bool, str]:
    holds, texts = True, {}
    for family, each in _get(found, *_HEAVY).items():
        curves = ran(each.paper)
        low, high = curves.index(24), curves.index(400)
        type_ii_s, total_s = curves.type_ii_s[BASE], curves.total_s[BASE]  # [C]
        stall = type_ii_s - curves.type_ii_compute_s[BASE]
        hidden = 1 - stall[high] / stall[low]
        part = (type_ii_s[low] - type_ii_s[high]) / (total_s[low] - total_s[high])
        holds &= bool(hidden >= 0.9 and part >= 0.5)
        texts[family] = (
            f"{hidden:.1%} of their stalls are gone at 400 MB, which is {part:.0%} of "
            "the time saved"
        )
    return holds, _join(texts)


@_observation(
    "A larger batch does not always raise the throughput",
    "batches are ours; at 24 MB under +10 % but for GNMT (at least 2×); at 400 MB GNMT "
    "falls again",
)
def _batch_is_no_cure(found: Found) -> tuple[bool, str]:
    rates = {}  # samples per second at 24 and at 400 MB, over the batch
    for family, each in _get(found, *_EVERY).items():
        batches = ran(each.batches)
        if list(batches.capacities_mb) != [24, 400]:
            raise NotRun("needs batches at 24 and 400 MB")
        rates[family] = batches.samples_per_s
    sizes = ran(found[GNMT].batches).sizes
    small, large = rates.pop(GNMT)
    holds = bool(small[-1] >= 2 * small[0] and large[-1] < large.max())
    gains = {}
    for family, (rate, _) in rates.items():
        gains[family] = rate[-1] / rate[0]
        holds &= bool(rate[-1] <= 1.1 * rate[0])
    return holds, (
        f"from batch {sizes[0]} to {sizes[-1]} at 24 MB: {_list(gains, '{:.2f}×')}, GNMT "
        f"{small[-1] / small[0]:.2f}×; GNMT at 400 MB is best at batch "
        f"{sizes[int(np.argmax(large))]}"
    )
