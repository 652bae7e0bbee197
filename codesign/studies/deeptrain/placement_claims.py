"""Does BO-N lose at most 1 point against All-BN? The claim, and how it is told."""

import dataclasses
from collections.abc import Mapping

from codesign.studies import claims
from codesign.studies.claims import LEAST_SEEDS, TOLERANCE, PairedLoss, Verdict
from codesign.studies.deeptrain.placement_beside import format_points, format_verdict
from codesign.studies.deeptrain.placement_result import PlacementResult
from codesign.studies.deeptrain.placement_settings import PlacementConfig


@dataclasses.dataclass(frozen=True)
class Claim:
    """What can be said about one network's BO-N, among the claims of its page."""

    loss: PairedLoss  # on the test split
    verdict: Verdict

    @property
    def text(self) -> str:
        """The verdict as people read it."""
        return format_verdict(self.verdict)

    @property
    def sentence(self) -> str:
        """Loss, bound and verdict: "a loss of 0.20 points, at most 0.61 with ..."."""
        num_pairs = len(self.loss.losses)
        bound = self.loss.bound()
        loss = f"a loss of {format_points(self.loss.mean)} points"
        if bound is not None:
            loss += f", at most {format_points(bound)} with 95% confidence"
        if self.verdict != "not_decided":
            is_inferior = "inferior" if self.verdict == "inferior" else "not inferior"
            return f"{loss}: {is_inferior} by more than 1 point"
        why = ""
        if num_pairs < LEAST_SEEDS:
            why = f", as a claim takes {LEAST_SEEDS} seeds"
        elif bound is not None and bound <= TOLERANCE:
            why = ", as several looks or claims share the 5% and ask for more than that"
        return f"{loss}: not decided{why}"


def is_open(config: PlacementConfig, result: PlacementResult) -> bool:
    """Whether a claim is made, `num_seeds` do not decide it, and `max_seeds` could.

    The other networks' claims are not known yet, so each takes its equal share of the
    level: what that decides, Holm's order decides as well.
    """
    looks = claims.looks(config.num_seeds, config.max_seeds)
    if result.loss is None or not looks or looks[-1] == config.num_seeds:
        return False
    level = claims.LEVEL / len(looks) / len(config.networks)
    found = claims.verdicts({"": result.loss}, level=level)
    return found[""] == "not_decided"


def settle(
    config: PlacementConfig, found: Mapping[str, PlacementResult]
) -> dict[str, Claim]:
    """Decides the claims of a page together; a network that found none makes none."""
    losses = {name: each.loss for name, each in found.items() if each.loss is not None}
    num_looks = len(claims.looks(config.num_seeds, config.max_seeds)) or 1
    decided = claims.verdicts(losses, level=claims.LEVEL / num_looks)
    return {name: Claim(loss, decided[name]) for name, loss in losses.items()}


def footnote(config: PlacementConfig) -> str:
    """The rule, for the table."""
    looks = claims.looks(config.num_seeds, config.max_seeds)
    at = " and ".join(map(str, looks))
    when = f"It takes {LEAST_SEEDS} seeds, so {config.max_seeds} do not decide it."
    if looks:
        when = f"Looked at after {at} seeds"
        when += ", at half of that each." if len(looks) > 1 else "."
    holm = ", corrected for several networks (Holm)" if len(config.networks) > 1 else ""
    return (
        "Claim: that BO-N loses at most 1 point of test accuracy against All-BN, by a "
        f"one-sided paired t-test over seeds at {claims.LEVEL:.0%}{holm}, on these test "
        f"images, if losses are near to normal. {when}"
    )
