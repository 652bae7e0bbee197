"""The 14 observations of the paper's Chapter 5 as checks of our own numbers.

Where the paper leaves a number vague, the threshold is ours and stands in the check.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from codesign.hardware.memory import SYSTEMS
from codesign.studies.memory import memory_published as published
from codesign.studies.memory.capacity_measure import BASE, HBM
from codesign.studies.memory.capacity_result import Outcome
from codesign.workload.load import LABELS

RESNET, MOBILENET, GNMT, TRANSFORMER = (
    *("resnet50", "mobilenetv2", "gnmt", "transformer"),
)
_EVERY = (RESNET, MOBILENET, GNMT, TRANSFORMER)
_HEAVY = (RESNET, TRANSFORMER)  # that the paper calls compute-bound


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


class _Missing(Exception):
    """Networks or capacities that a check needs were not run."""


Found = dict[str, Outcome]
Check = Callable[[Found], tuple[bool, str]]


def check_all(outcomes: Sequence[Outcome]) -> list[Observation]:
    """All 14, in order. Keras's own ResNet-50 and MobileNetV2 go before ours."""
    found: Found = {}
    for outcome in outcomes:
        if outcome.family and (
            outcome.family not in found or outcome.network.startswith("keras:")
        ):
            found[outcome.family] = outcome
    checked = []
    for number, (claim, rule, check) in enumerate(_CHECKS, start=1):
        try:
            holds, evidence = check(found)
        except _Missing as missing:
            holds, evidence = None, str(missing)
        checked.append(Observation(number, claim, holds, evidence, rule))
    return checked


def ridge_point() -> float:
    """Operations per byte where the RTX 2080 Ti's two bounds meet, eq. 3.2."""
    spec = SYSTEMS["RTX 2080 Ti"]
    return float(spec.throughput_ops_per_s) / float(spec.bandwidth_bytes_per_s)


def compute_bound_share(outcome: Outcome) -> float:
    """Part of the type-I layers whose reuse frequency lies above the ridge point."""
    layers = outcome.layers
    return float(np.mean(layers.reuse_frequency[~layers.is_type_ii] > ridge_point()))


def _get(found: Found, *families: str) -> list[Outcome]:
    missing = [LABELS[family] for family in families if family not in found]
    if missing:
        raise _Missing(f"needs {' and '.join(missing)} at the paper's batch")
    return [found[family] for family in families]


def _some(value: float | None) -> float:
    if value is None:
        raise _Missing("needs capacities that were not swept")
    return value


def _list(values: dict[str, str]) -> str:
    return ", ".join(f"{LABELS[name]} {text}" for name, text in values.items())


def _reuse_varies(found: Found) -> tuple[bool, str]:
    spread = {}
    for family, outcome in zip(_EVERY, _get(found, *_EVERY), strict=True):
        frequency = outcome.layers.reuse_frequency
        spread[family] = float(frequency.max() / frequency.min())
    evidence = _list({name: f"{value:,.0f}×" for name, value in spread.items()})
    return min(spread.values()) >= 100, evidence


def _two_tendencies(found: Found) -> tuple[bool, str]:
    outcomes = _get(found, *_EVERY)
    share = dict(zip(_EVERY, map(compute_bound_share, outcomes), strict=True))
    heavy = all(share[name] > 0.5 for name in _HEAVY)
    light = all(share[name] < 2 / 3 for name in (MOBILENET, GNMT))
    return heavy and light, _list({n: f"{value:.0%}" for n, value in share.items()})


def _block_reuse_saves(found: Found) -> tuple[bool, str]:
    resnet, mobilenet, transformer = _get(found, RESNET, MOBILENET, TRANSFORMER)
    drops = {
        RESNET: _some(published.traffic_drop(resnet, 24, published.knee_mb(resnet))),
        MOBILENET: _some(
            published.traffic_drop(mobilenet, 24, published.knee_mb(mobilenet))
        ),
        TRANSFORMER: _some(published.traffic_drop(transformer, 24, 128)),
    }
    part = _some(published.captured(transformer, 180, ("adjacent", "block")))
    holds = all(0.6 <= drop <= 0.8 for drop in drops.values()) and part >= 0.9
    evidence = _list({name: f"{drop:.1%}" for name, drop in drops.items()})
    return holds, f"{evidence}; Transformer at 180 MB captures {part:.1%} of both"


def _weights_dominate(found: Found) -> tuple[bool, str]:
    (gnmt,) = _get(found, GNMT)
    drop = _some(published.traffic_drop(gnmt, 24, 500))
    gains = {}
    reuse = gnmt.reuse
    if reuse is None:
        raise _Missing("needs the reuse by scope")
    for scope in reuse.scopes:
        low, high = (_some(published.captured(gnmt, mb, (scope,))) for mb in (24, 500))
        possible = float(reuse.possible_bytes[reuse.scopes.index(scope)])
        gains[scope] = (high - low) * possible
    part = gains["recurrent weight"] / sum(gains.values())
    return (
        drop >= 0.9 and part > 0.5,
        f"traffic falls by {drop:.1%} from 24 to 500 MB, {part:.1%} of it by recurrent "
        "weight reuse",
    )


def _throughput_is_wasted(found: Found) -> tuple[bool, str]:
    outcomes = _get(found, *_HEAVY)
    gains = [_some(published.speedup(outcome, 24)) - 1 for outcome in outcomes]
    bound = _some(published.speedup_bound(outcomes[0])) - 1
    evidence = _list(
        {name: f"+{gain:.1%}" for name, gain in zip(_HEAVY, gains, strict=True)}
    )
    return max(gains) <= 2 / 3 * bound, f"{evidence} of +{bound:.0%}"


def _flat_beyond_400(found: Found) -> tuple[bool, str]:
    families = (RESNET, TRANSFORMER, GNMT)
    holds, texts = True, {}
    for family, outcome in zip(families, _get(found, *families), strict=True):
        drop = _some(published.time_drop(outcome, 400, 1000))
        reached = _some(published.speedup(outcome, 1000))
        bound = _some(published.speedup_bound(outcome))
        holds &= drop <= 0.05 and reached >= 0.9 * bound
        texts[family] = f"−{drop:.1%} of time, speed-up {reached:.2f} of {bound:.2f}"
    return holds, _list(texts)


def _light_still_gains(found: Found) -> tuple[bool, str]:
    (mobilenet,) = _get(found, MOBILENET)
    drop = _some(published.time_drop(mobilenet, 400, 1000))
    return drop >= 0.1, f"its time falls by {drop:.1%} from 400 to 1000 MB"


def _memory_bound_gain_more(found: Found) -> tuple[bool, str]:
    outcomes = _get(found, *_EVERY)
    drops = {
        family: _some(published.time_drop(outcome, 24, 500))
        for family, outcome in zip(_EVERY, outcomes, strict=True)
    }
    light = min(drops[MOBILENET], drops[GNMT])
    heavy = max(drops[name] for name in _HEAVY)
    return light > heavy, _list({name: f"−{drop:.1%}" for name, drop in drops.items()})


def _rnn_needs_room(found: Found) -> tuple[bool, str]:
    (gnmt,) = _get(found, GNMT)
    low, high = (_some(published.speedup(gnmt, mb)) - 1 for mb in (24, 500))
    return low < 0.1 and high >= 3 * max(
        low, 0.1
    ), f"+{low:.1%} at 24, +{high:.1%} at 500 MB"


def _bandwidth_gap(outcome: Outcome, mebibytes: float) -> float:
    """Average bandwidth at 1555 GB/s over that at 616 GB/s, Fig. 5.4."""
    curves = outcome.paper
    place = None if curves is None else curves.index(mebibytes)
    if curves is None or place is None:
        raise _Missing("needs capacities that were not swept")
    return float(curves.total_s[BASE, place] / curves.total_s[HBM, place])


def _cache_for_bandwidth(found: Found) -> tuple[bool, str]:
    families = (RESNET, TRANSFORMER, GNMT)
    holds, texts = True, {}
    for family, outcome in zip(families, _get(found, *families), strict=True):
        low, high = (_bandwidth_gap(outcome, mb) for mb in (24, 1000))
        holds &= high < low and high <= 1.15
        texts[family] = f"{low:.2f}× at 24, {high:.2f}× at 1000 MB"
    return holds, _list(texts)


def _light_stays_hungry(found: Found) -> tuple[bool, str]:
    (mobilenet,) = _get(found, MOBILENET)
    gap = _bandwidth_gap(mobilenet, 1000)
    traffic = _some(published.traffic_drop(mobilenet, 24, published.knee_mb(mobilenet)))
    others = [
        _bandwidth_gap(found[family], 1000) for family in _EVERY if family in found
    ]
    return (
        gap >= 1.3 and gap == max(others),
        f"HBM still gives {gap:.2f}× at 1000 MB, although traffic falls by {traffic:.1%}",
    )


def _pointwise_take_time(found: Found) -> tuple[bool, str]:
    outcomes = _get(found, *_HEAVY)
    shares = [_some(published.type_ii_share(outcome, 24)) for outcome in outcomes]
    evidence = {n: f"{share:.1%}" for n, share in zip(_HEAVY, shares, strict=True)}
    return min(shares) >= 0.1, _list(evidence)


def _pointwise_hidden(found: Found) -> tuple[bool, str]:
    holds, texts = True, {}
    for family, outcome in zip(_HEAVY, _get(found, *_HEAVY), strict=True):
        curves = outcome.paper
        low = None if curves is None else curves.index(24)
        high = None if curves is None else curves.index(400)
        if curves is None or low is None or high is None:
            raise _Missing("needs capacities that were not swept")
        stall = curves.type_ii_s[BASE] - curves.type_ii_compute_s[BASE]  # [C]
        hidden = 1 - stall[high] / stall[low]
        saved = curves.total_s[BASE, low] - curves.total_s[BASE, high]
        part = (curves.type_ii_s[BASE, low] - curves.type_ii_s[BASE, high]) / saved
        holds &= bool(hidden >= 0.9 and part >= 0.5)
        texts[family] = (
            f"{hidden:.1%} of their stalls are gone at 400 MB, which is {part:.0%} of "
            "the time saved"
        )
    return holds, _list(texts)


def _batch_is_no_cure(found: Found) -> tuple[bool, str]:
    families = (RESNET, MOBILENET, TRANSFORMER)
    holds, texts = True, {}
    (gnmt,) = _get(found, GNMT)
    for family, outcome in zip(families, _get(found, *families), strict=True):
        small, _ = _throughput(outcome)
        holds &= bool(small[-1] <= 1.1 * small.max() and small[-1] <= 1.1 * small[0])
        texts[family] = f"{small[-1] / small[0]:.2f}×"
    small, large = _throughput(gnmt)
    holds &= bool(small[-1] >= 2 * small[0] and large[-1] < large.max())
    sizes = gnmt.batches.sizes if gnmt.batches else []
    return holds, (
        f"from batch {sizes[0]} to {sizes[-1]} at 24 MB: {_list(texts)}, GNMT "
        f"{small[-1] / small[0]:.2f}×; GNMT at 400 MB is best at batch "
        f"{sizes[int(np.argmax(large))]}"
    )


def _throughput(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    """Samples per second at 24 and at 400 MB, over the batch."""
    found = outcome.batches
    if found is None or list(found.capacities_mb) != [24, 400]:
        raise _Missing("needs batches at 24 and 400 MB")
    return found.samples_per_s[0], found.samples_per_s[1]


_CHECKS: tuple[tuple[str, str, Check], ...] = (
    (
        "Reuse frequency varies vastly among layers",
        "largest over smallest at least 100× in every network",
        _reuse_varies,
    ),
    (
        "ResNet and Transformer tend to compute-bound, MobileNet and GNMT to "
        "memory-bound",
        "type-I layers above the ridge point: over half, and under two thirds",
        _two_tendencies,
    ),
    (
        "Adjacent-layer and block reuse save around 70 % of the traffic",
        "60 to 80 % at the knees and at 128 MB; 90 % of both captured by 180 MB",
        _block_reuse_saves,
    ),
    (
        "Recurrent weight reuse dominates the traffic of RNNs",
        "traffic falls by at least 90 %, over half of it by recurrent weights",
        _weights_dominate,
    ),
    (
        "Computation-intensive networks cannot use more throughput at existing caches",
        "at 24 MB at most two thirds of what the throughput allows",
        _throughput_is_wasted,
    ),
    (
        "Forward-backward reuse helps little for most networks",
        "400 to 1000 MB saves at most 5 % of time; speed-up within 10 % of its bound",
        _flat_beyond_400,
    ),
    (
        "Forward-backward reuse still helps light networks",
        "400 to 1000 MB saves at least 10 % of MobileNet's time",
        _light_still_gains,
    ),
    (
        "Memory-bound networks are more sensitive to capacity",
        "24 to 500 MB saves more of MobileNet and GNMT than of the other two",
        _memory_bound_gain_more,
    ),
    (
        "The cache must be large to be effective for RNNs",
        "+71 % throughput gives under 10 % at 24 MB, and over three times as much at "
        "500 MB",
        _rnn_needs_room,
    ),
    (
        "With enough compute-bound layers a large cache replaces bandwidth",
        "1555 over 616 GB/s: the gap closes to at most 1.15×",
        _cache_for_bandwidth,
    ),
    (
        "Capacity helps little against the bandwidth eagerness of light networks",
        "1555 over 616 GB/s: MobileNet's gap stays at least 1.3×, the widest of all",
        _light_stays_hungry,
    ),
    (
        "Point-wise layers take a part of the time at existing caches",
        "at least 10 % at 24 MB",
        _pointwise_take_time,
    ),
    (
        "Transfers of point-wise layers are almost hidden once a block fits",
        "90 % of their stalls gone at 400 MB, half of the saved time theirs",
        _pointwise_hidden,
    ),
    (
        "A larger batch does not always raise the throughput",
        "batches are ours; at 24 MB under +10 % but for GNMT (at least 2×); at 400 MB "
        "GNMT falls again",
        _batch_is_no_cure,
    ),
)
