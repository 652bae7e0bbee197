"""Names of how a training is done in number formats, such as `bfp5+stochastic`."""

import dataclasses

from codesign.kernels.cast_product import CLASSES
from codesign.models.formats import Formats
from codesign.numerics import bfp, formats
from codesign.records.named import nearest

_SQUARES = {size * size: (size, size) for size in range(2, 65)}
_MASTERS = ("master", "master_truncate")
_OPTIONS = ("tile", "stochastic", "nearest", *_MASTERS)


def parse(text: str) -> Formats:
    """Formats of a scheme.

        bfp5                 one format for weights, activations and gradients
        bfp5:gradients       for one class alone; the others stay float32
        bfp5+tile            square tiles, which serve all three products of a layer
        bfp5+stochastic      rounded at random; `+nearest` to the nearest, ties to even
        bfp5+master          weights between steps in the format, too, rounded at random;
                             `+master_truncate` truncates them

    Options may follow each other: `bfp3x16+nearest+tile`. What is rounded at random may
    carry into its exponent (`renorm`): cut at the top of its block, a number would lose on
    average, and a weight could not grow past a power of two.

    Raises:
        ValueError: For a name, class or option that is none, or one that does not fit.
    """
    first, *options = text.split("+")
    name, _, kind = first.partition(":")
    fmt = formats.by_name(name)
    if kind not in CLASSES and ":" in first:
        raise ValueError(f"{text!r}: {kind!r} is no class; {nearest(kind, CLASSES)}")
    for option in options:
        if option not in _OPTIONS:
            raise ValueError(
                f"{text!r}: {option!r} is none; {nearest(option, _OPTIONS)}"
            )
        if options.count(option) > 1:
            raise ValueError(f"{text!r} has {option!r} twice; leave one out.")
    if not isinstance(fmt, bfp.Format):
        if options:
            raise ValueError(
                f"{text!r}: options are of block floating point, such as `bfp5`; leave "
                f"{'+'.join(options)!r} out."
            )
        return Formats.of({kind: fmt} if kind else fmt)
    for one, other in (("stochastic", "nearest"), _MASTERS):
        if one in options and other in options:
            raise ValueError(
                f"{text!r} rounds in two ways, {one!r} and {other!r}; take one."
            )
    at_random = dataclasses.replace(fmt, rounding="stochastic", carry="renorm")
    settings = {}
    if "master" in options:
        settings["master"] = at_random
    elif "master_truncate" in options:
        settings["master"] = fmt
    if "stochastic" in options:
        fmt = at_random
    elif "nearest" in options:
        fmt = dataclasses.replace(fmt, rounding="nearest_even")
    if "tile" in options:
        if fmt.block_size not in _SQUARES:
            raise ValueError(
                f"{text!r}: blocks of {fmt.block_size} are no square tile; take 9 or 16, "
                "such as `bfp5x16+tile`."
            )
        settings["tile"] = _SQUARES[fmt.block_size]
    return Formats.of({kind: fmt} if kind else fmt, **settings)


def bits_per_number(text: str) -> float:
    """Mean width of a number in its format over the three classes, in full blocks.

    A short block is padded to a whole one; what is cast along two axes has two codes; the
    bias of a tensor and weights between steps are not counted.
    """
    found = parse(text)
    widths = [formats.bits_per_number(getattr(found, name)) for name in CLASSES]
    return sum(widths) / len(widths)
