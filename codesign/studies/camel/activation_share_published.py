"""What CAMEL says of activations and weights, beside ours in every way of counting."""

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping

from codesign.report import Quantity
from codesign.studies.camel.activation_share_count import KEPT, STEMS, NetworkCounts
from codesign.studies.published import Published

PRINTED = (
    13.0  # section I, of Fig. 1(b): "approximately 13 times larger ... on average"
)
BITS = {  # for each activation, and for each weight
    "equal": (32.0, 32.0),
    "activations twice": (64.0, 32.0),  # with a gradient of each
    "activations 6.4": (6.4, 32.0),  # nine numbers in a word of 58 bits
    "weights 6.4": (32.0, 6.4),
}
Convention = tuple[str, str, str]  # what is kept, stem, bits
OURS: Convention = ("read", "small", "equal")
Found = Mapping[str, NetworkCounts]


def conventions() -> list[Convention]:
    """All ways of counting."""
    return [*itertools.product(KEPT, STEMS, BITS)]


def ratio(counts: NetworkCounts, convention: Convention, batch_size: int) -> float:
    """Bytes of the activations of a batch over those of the weights."""
    kept, stem, bits = convention
    of, (activation_bits, weight_bits) = counts.of(stem), BITS[bits]
    activations = batch_size * getattr(of, kept)
    return activations * activation_bits / (of.weights * weight_bits)


def mean_ratio(found: Found, convention: Convention, batch_size: int) -> float:
    """Mean over networks of their ratios."""
    return statistics.fmean(ratio(c, convention, batch_size) for c in found.values())


def nearest(found: Found, batch_size: int) -> list[Convention]:
    """All conventions; first that whose mean is nearest to the printed one, as a factor."""

    def off(convention: Convention) -> float:
        return abs(math.log(mean_ratio(found, convention, batch_size) / PRINTED))

    return sorted(conventions(), key=off)


def published() -> list[Published[dict[Convention, float]]]:
    """The printed mean, beside ours by what is kept; small stem, equal widths."""
    return [
        Published(
            name="mean_ratio",
            of={"kept": kept},
            value=PRINTED,
            source="section I, of Fig. 1(b)",
            kind="derived",
            ours=lambda means, kept=kept: means[kept, *OURS[1:]],
            title=f"Activations over weights; {text}",
            note="mean of the networks; the paper does not say what it counts",
        )
        for kept, text in KEPT.items()
    ]


def numbers(found: Found, batch_size: int) -> Iterator[Quantity]:
    """Means of all other conventions; elements, ratio and share of every network."""
    for convention in conventions():
        if convention[1:] != OURS[1:]:
            kept, stem, bits = convention
            of = {"kept": kept, "stem": stem, "bits": bits}
            mean = mean_ratio(found, convention, batch_size)
            yield Quantity("mean_ratio", mean, kind="assumed", of=of)
    kept, stem, _ = OURS
    for network, counts in found.items():
        of = {"network": network}
        value, elements = ratio(counts, OURS, batch_size), counts.of(stem)
        yield Quantity("activations_over_weights", value, kind="derived", of=of)
        share = value / (1 + value)
        yield Quantity("activation_share", share, "ratio", kind="derived", of=of)
        yield Quantity("num_weights", elements.weights, kind="derived", of=of)
        num_kept = batch_size * getattr(elements, kept)
        yield Quantity("num_kept", num_kept, kind="derived", of=of)
