"""Google's translation network (GNMT), on sequences that are already embedded."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from codesign.kernels.einsum import einsum
from codesign.kernels.product import Axes
from codesign.models.attention import attention_weights
from codesign.models.layers import Dense, Dropout
from codesign.models.lstm import LSTMCell, State, zero_state
from codesign.models.registry import register
from codesign.types import Array

# Of one query; the gradients by the memory are outer products, which add nothing.
_SCORES = Axes(forward=(-1, -1), input_gradient=(-1, 1), weight_gradient=(-1, -1))
_CONTEXT = Axes(forward=(-1, 1), input_gradient=(-1, -1), weight_gradient=(-1, -1))


@register("gnmt", title="GNMT")
class GNMT(nn.Module):
    """Wu et al., 2016: stacks of LSTM layers with residual connections and attention.

    The decoder attends from the output of its first layer, and the layers above get the
    context (as NVIDIA's entry to MLPerf does). Other than there, `tanh` of a dense layer
    joins the two (Luong et al., EMNLP 2015, eq. 5), so that every weight is
    [2 H, H]; scores are scaled dot products; the encoder reads forward only; residual
    connections start at the second layer. All states start at 0. There is neither an
    embedding nor a projection on a vocabulary, but a dense layer of the hidden width.

    Time is a scan whose body holds one step of all layers: layer l at time t waits for
    layer l - 1 at t and for itself at t - 1.
    """

    hidden: int = 1024  # width of a vector
    num_layers: int = 4  # of the encoder, and of the decoder
    dropout_rate: float = 0.0  # of the inputs of each LSTM layer, in training
    initialisation: str = "xavier"  # or `pytorch`, `kaiming`

    @nn.compact
    def __call__(self, source: Array, target: Array, *, train: bool) -> Array:
        """Source [B, S, H] and target [B, T, H], shifted by one -> [B, T, H].

        Output t sees the whole source and the targets 0..t.
        """
        settings: dict[str, Any] = dict(
            hidden=self.hidden,
            dropout_rate=self.dropout_rate,
            initialisation=self.initialisation,
            train=train,
        )
        states = tuple(
            zero_state(source.shape[0], self.hidden) for _ in range(self.num_layers)
        )

        def over_time(in_axes):
            return nn.scan(
                _Step,
                variable_broadcast="params",
                split_rngs={"params": False, "dropout": True},
                in_axes=in_axes,
                out_axes=1,
                # `init` needs it; elsewhere it traces the body once more, and leaves
                # equations without a result for a tracer to stumble on.
                check_constancy_invariants=self.is_initializing(),
            )

        encoder = over_time(1)(**settings, name="encoder")
        _, memory = encoder(states, source)
        decoder = over_time((1, nn.broadcast))(**settings, name="decoder")
        _, x = decoder(states, target, memory)
        return Dense(self.hidden, self.initialisation, name="output")(x)


class _Step(nn.Module):
    """One time step of all layers of the encoder, or of the decoder if given a memory.

    Residual connections begin at the second layer; the first attends to the memory.
    """

    hidden: int
    dropout_rate: float
    initialisation: str
    train: bool

    @nn.compact
    def __call__(
        self, states: tuple[State, ...], x: Array, memory: Array | None = None
    ) -> tuple[tuple[State, ...], Array]:
        """States of the layers, an input [B, H], a memory [B, S, H] -> states, [B, H]."""
        after = []
        for number, state in enumerate(states, start=1):
            y = Dropout(self.dropout_rate, name=f"dropout{number}")(x, train=self.train)
            cell = LSTMCell(self.hidden, self.initialisation, name=f"lstm{number}")
            state, y = cell(state, y)
            x = y if number == 1 else x + y
            after.append(state)
            if number == 1 and memory is not None:
                attention = _Attention(
                    self.hidden, self.initialisation, name="attention"
                )
                x = attention(x, memory)
        return tuple(after), x


class _Attention(nn.Module):
    """Joins a vector with what it attends to."""

    hidden: int
    initialisation: str

    @nn.compact
    def __call__(self, x: Array, memory: Array) -> Array:
        """A query [B, H] and a memory [B, S, H] -> [B, H]."""
        with jax.named_scope("scores"):
            scores = einsum("bh,bsh->bs", x, memory, _SCORES)
        weights = attention_weights(scores, scale=1 / math.sqrt(x.shape[-1]))
        with jax.named_scope("context"):
            context = einsum("bs,bsh->bh", weights, memory, _CONTEXT)
        joined = jnp.concatenate([x, context], -1)
        return jnp.tanh(Dense(self.hidden, self.initialisation, name="join")(joined))
