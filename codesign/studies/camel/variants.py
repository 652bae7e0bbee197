"""Names of how a branch is trained beside its backbone, such as `duplex+errors0.01`."""

import dataclasses
import re
from typing import Any

from codesign.models.duplex import ALGORITHMS
from codesign.records.named import nearest

_PLAIN = {
    "float32": {"in_format": False},
    "norms": {"norms": True},
    "double": {"side_factor": 2},
    "concatenate": {"join": "concatenate"},
    "unrefreshed": {"refreshed": False},
    "recomputed": {"recompute_taps": True},
}
_RATES = re.compile(r"(errors|spared)(0\.\d+|1)")
_OPTIONS = (*_PLAIN, "errors0.001", "spared0.001")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to train a branch.

    Attributes:
        algorithm: One of `duplex.ALGORITHMS`.
        in_format: Whether products are in the study's number format, else float32.
        norms: Whether the branch has its batch norms (Fig. 17b).
        side_factor: Times the study's side of pooled maps (Fig. 17a).
        error_rate: Of reads from the memory (Fig. 17c).
        of_streams: Whether they hit the reversible streams, too.
        join: How taps come in.
        refreshed: Whether what waits for the backward pass is refreshed (Table VIII).
        recompute_taps: Whether the backbone runs again in place of keeping taps.
    """

    algorithm: str
    in_format: bool = True
    norms: bool = False
    side_factor: int = 1
    error_rate: float = 0.0
    of_streams: bool = True
    join: str = "add"
    refreshed: bool = True
    recompute_taps: bool = False


def parse(text: str) -> Variant:
    """A variant by its name.

        duplex               DuDNN as the paper has it; `irreversible` is FI, `chain` CA,
                             `branch_only` BO
        duplex+float32       its products in float32
        duplex+norms         with a batch norm in each residual function
        duplex+double        maps of twice the side
        duplex+errors0.001   0.1 % of reads are noise, streams among them
        duplex+spared0.001   likewise, but of what enters residual functions alone
        duplex+concatenate   taps beside the stream in place of added to it
        irreversible+unrefreshed   what is kept for the backward pass decays

    Raises:
        ValueError: For what is no algorithm or option, or options that do not fit.
    """
    algorithm, *options = text.split("+")
    if algorithm not in ALGORITHMS:
        raise ValueError(f"{text!r}: {algorithm!r}; {nearest(algorithm, ALGORITHMS)}")
    changes: dict[str, Any] = {}
    for option in options:
        rate = _RATES.fullmatch(option)
        if rate:
            new: dict[str, Any] = {"error_rate": float(rate[2])}
            new |= {"of_streams": False} if rate[1] == "spared" else {}
        elif option in _PLAIN:
            new = _PLAIN[option]
        else:
            raise ValueError(f"{text!r}: {option!r}; {nearest(option, _OPTIONS)}")
        if changes.keys() & new.keys():
            raise ValueError(
                f"{text!r} says {', '.join(changes.keys() & new.keys())} twice; leave one "
                "out."
            )
        changes |= new
    made = Variant(algorithm, **changes)
    if not made.refreshed and ALGORITHMS[algorithm].is_reversible:
        raise ValueError(
            f"{text!r}: a reversible branch keeps nothing that decays; `irreversible` does."
        )
    has_taps = ALGORITHMS[algorithm].has_taps
    if made.recompute_taps and not has_taps:
        raise ValueError(f"{text!r}: {algorithm!r} has no taps; leave the option out.")
    return made
