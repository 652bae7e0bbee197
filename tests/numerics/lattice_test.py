"""Points of the lattice, and where float32 ends to add them exactly."""

import jax
import jax.numpy as jnp
import numpy as np

from codesign.numerics.lattice import largest, to_lattice


def test_the_lattice_has_its_points_and_the_gradient_of_the_input():
    x = jnp.array([0.3, -0.1, 0.125, -0.9])
    np.testing.assert_array_equal(to_lattice(x, 2), [0.25, 0.0, 0.0, -1.0])
    assert not np.signbit(to_lattice(x, 2)[1])
    slope = jax.grad(lambda x: jnp.sum(to_lattice(x, 2) * jnp.arange(4.0)))(x)
    np.testing.assert_array_equal(slope, np.arange(4))


def test_sums_are_exact_up_to_the_largest_point_and_no_further():
    top, step = np.float32(largest(12)), np.float32(2.0**-12)
    assert top == 4096
    assert (top - step) + step == top
    assert top + step == top
