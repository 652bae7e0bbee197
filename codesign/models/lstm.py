"""An LSTM cell, written op by op."""

import flax.linen as nn
import jax.numpy as jnp

from codesign.models.layers import Dense
from codesign.types import Array

State = tuple[Array, Array]  # cell and output, [B, H] each


class LSTMCell(nn.Module):
    """Hochreiter & Schmidhuber, 1997, with forget gates (Gers et al., 2000).

    Each gate is a dense layer of its own over the joined input and last output, as the
    memory paper counts a cell: a weight is [C + H, H], and so is what must be kept for
    the next time step.
    """

    hidden: int
    initialisation: str = "xavier"

    @nn.compact
    def __call__(self, state: State, x: Array) -> tuple[State, Array]:
        """One time step: state and x [B, C] -> the next state and its output [B, H]."""
        cell, output = state
        joined = jnp.concatenate([x, output], -1)

        def gate(name):
            return Dense(self.hidden, self.initialisation, name=name)(joined)

        input_gate = nn.sigmoid(gate("input_gate"))
        forget_gate = nn.sigmoid(gate("forget_gate"))
        candidate = jnp.tanh(gate("candidate"))
        output_gate = nn.sigmoid(gate("output_gate"))
        cell = forget_gate * cell + input_gate * candidate
        output = output_gate * jnp.tanh(cell)
        return (cell, output), output


def zero_state(batch: int, hidden: int) -> State:
    """State before the first time step."""
    return jnp.zeros((batch, hidden)), jnp.zeros((batch, hidden))
