"""What the tests of several importers and of the tracer share."""

import jax
import pytest


@pytest.fixture
def any_ranks():
    """Lets networks of others add vectors to maps."""
    with jax.numpy_rank_promotion("allow"):
        yield
