"""Names of schemes: what they mean, and what is refused."""

import dataclasses

import pytest

from codesign.numerics import bfp
from codesign.studies.camel import schemes


def test_one_format_for_all_three_classes():
    found = schemes.parse("bfp5")
    assert found.weights == found.activations == found.gradients
    assert found.weights == bfp.Format(bias="tensor")
    assert found.master == "float32"
    assert found.tile is None


def test_a_class_alone():
    found = schemes.parse("mxfp4_e2m1:gradients")
    assert (found.weights, found.activations) == ("float32", "float32")
    assert found.gradients == "mxfp4_e2m1"


def test_options_follow_each_other():
    found = schemes.parse("bfp3x16+nearest+tile+master_truncate")
    assert found.tile == (4, 4)
    three = bfp.Format(block_size=16, mantissa_bits=3, bias="tensor")
    assert found.weights == dataclasses.replace(three, rounding="nearest_even")
    assert found.master == three
    # Cut at the top of a block, a number rounded at random would lose on average.
    at_random = bfp.Format(bias="tensor", rounding="stochastic", carry="renorm")
    assert schemes.parse("bfp5+master").master == at_random
    assert schemes.parse("bfp5+stochastic").gradients == at_random


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("bfp", "did you mean.*`bfp5`"),
        ("bfp5:weight", "no class.*`weights`"),
        ("bfp5+tiles", "'tiles' is none.*`tile`"),
        ("mxint8+tile", "options are of block floating point.*leave 'tile' out"),
        ("bfp5x10+tile", "blocks of 10 are no square"),
        ("bfp5+stochastic+nearest", "rounds in two ways"),
        ("bfp5+master+master_truncate", "rounds in two ways"),
        ("bfp5+tile+tile", "'tile' twice"),
        ("bfp5:", "'' is no class"),
        ("bfp0", "mantissa_bits"),
        ("", "is none"),
    ],
)
def test_what_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        schemes.parse(text)


def test_storage_of_a_number():
    # 4 + 9 x 6 = 58 bits of 9 numbers; 4 bits and 8 of 32 numbers' scale.
    assert schemes.bits_per_number("bfp5") == pytest.approx(58 / 9)
    assert schemes.bits_per_number("mxfp4_e2m1") == pytest.approx(4.25)
    assert schemes.bits_per_number("bfp5:weights") == pytest.approx((58 / 9 + 64) / 3)
