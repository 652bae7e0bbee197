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

    Options may follow each other: `bfp3x16+nearest+tile`.

    Raises:
        ValueError: For a name, class or option that is none, or one that does not fit.
    """
    first, *options = text.split("+")
    name, _, kind = first.partition(":")
    fmt = formats.by_name(name)
    if kind and kind not in CLASSES:
        raise ValueError(f"{text!r}: {kind!r} is no class; {nearest(kind, CLASSES)}")
    for option in options:
        if option not in _OPTIONS:
            raise ValueError(
                f"{text!r}: {option!r} is none; {nearest(option, _OPTIONS)}"
            )
    if not isinstance(fmt, bfp.Format):
        if options:
            raise ValueError(
                f"{text!r}: options are of block floating point, such as `bfp5`; leave "
                f"{'+'.join(options)!r} out."
            )
        return Formats.of({kind: fmt} if kind else fmt)
    if len({*options} & {"stochastic", "nearest"}) == 2:
        raise ValueError(f"{text!r} rounds in two ways; take one.")
    rounding = "truncate"
    if "stochastic" in options:
        rounding = "stochastic"
    elif "nearest" in options:
        rounding = "nearest_even"
    fmt = dataclasses.replace(fmt, rounding=rounding)
    settings = {}
    if "tile" in options:
        if fmt.block_size not in _SQUARES:
            raise ValueError(
                f"{text!r}: blocks of {fmt.block_size} are no square tile; take 9 or 16, "
                "such as `bfp5x16+tile`."
            )
        settings["tile"] = _SQUARES[fmt.block_size]
    for option in {*options} & {*_MASTERS}:
        how = "stochastic" if option == "master" else "truncate"
        settings["master"] = dataclasses.replace(fmt, rounding=how)
    return Formats.of({kind: fmt} if kind else fmt, **settings)


def bits_per_number(text: str) -> float:
    """Mean storage of a number over the three classes."""
    found = parse(text)
    widths = [formats.bits_per_number(getattr(found, name)) for name in CLASSES]
    return sum(widths) / len(widths)
