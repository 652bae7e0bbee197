"""Google's translation network (GNMT), on sequences that are already embedded."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from codesign.models.attention import attention_weights
from codesign.models.layers import Dense, Dropout
from codesign.models.lstm import LSTMCell, State, zero_state
from codesign.types import Array


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

    Attributes:
        num_layers: Of the encoder, and of the decoder.
        hidden: Width of a vector.
        dropout_rate: Of the inputs of each LSTM layer, in training.
        initialisation: `pytorch`, `xavier` or `kaiming`.
    """

    num_layers: int = 4
    hidden: int = 1024
    dropout_rate: float = 0.0
    initialisation: str = "xavier"

    @nn.compact
    def __call__(self, source: Array, target: Array, *, train: bool) -> Array:
        """Source [B, S, H] and target [B, T, H], shifted by one -> [B, T, H].

        Output t sees the whole source and the targets 0..t.
        """
        settings: dict[str, Any] = dict(
            num_layers=self.num_layers,
            hidden=self.hidden,
            dropout_rate=self.dropout_rate,
            initialisation=self.initialisation,
            train=train,
        )
        states = tuple(
            zero_state(source.shape[0], self.hidden) for _ in range(self.num_layers)
        )

        def over_time(step, in_axes):
            return nn.scan(
                step,
                variable_broadcast="params",
                split_rngs={"params": False, "dropout": True},
                in_axes=in_axes,
                out_axes=1,
                # `init` needs it; elsewhere it traces the body once more, and leaves
                # equations without a result for a tracer to stumble on.
                check_constancy_invariants=self.is_initializing(),
            )

        encoder = over_time(_EncoderStep, 1)(**settings, name="encoder")
        _, memory = encoder(states, source)
        decoder = over_time(_DecoderStep, (1, nn.broadcast))(**settings, name="decoder")
        _, x = decoder(states, target, memory)
        return Dense(self.hidden, self.initialisation, name="output")(x)


class _Step(nn.Module):
    """One time step of a stack of layers."""

    num_layers: int
    hidden: int
    dropout_rate: float
    initialisation: str
    train: bool

    def layer(self, number: int, state: State, x: Array) -> tuple[State, Array]:
        """LSTM layer `number`, from 1, with a residual connection from the second on."""
        y = Dropout(self.dropout_rate, name=f"dropout{number}")(x, train=self.train)
        cell = LSTMCell(self.hidden, self.initialisation, name=f"lstm{number}")
        state, y = cell(state, y)
        return state, y if number == 1 else x + y


class _EncoderStep(_Step):
    @nn.compact
    def __call__(
        self, states: tuple[State, ...], x: Array
    ) -> tuple[tuple[State, ...], Array]:
        after = []
        for i, state in enumerate(states):
            state, x = self.layer(i + 1, state, x)
            after.append(state)
        return tuple(after), x


class _DecoderStep(_Step):
    @nn.compact
    def __call__(
        self, states: tuple[State, ...], x: Array, memory: Array
    ) -> tuple[tuple[State, ...], Array]:
        after = []
        for i, state in enumerate(states):
            state, x = self.layer(i + 1, state, x)
            after.append(state)
            if i == 0:
                x = _Attention(self.hidden, self.initialisation, name="attention")(
                    x, memory
                )
        return tuple(after), x


class _Attention(nn.Module):
    """Joins a vector with what it attends to."""

    hidden: int
    initialisation: str

    @nn.compact
    def __call__(self, x: Array, memory: Array) -> Array:
        """A query [B, H] and a memory [B, S, H] -> [B, H]."""
        with jax.named_scope("scores"):
            scores = jnp.einsum("bh,bsh->bs", x, memory)
        weights = attention_weights(scores, scale=1 / math.sqrt(x.shape[-1]))
        with jax.named_scope("context"):
            context = jnp.einsum("bs,bsh->bh", weights, memory)
        joined = jnp.concatenate([x, context], -1)
        return jnp.tanh(Dense(self.hidden, self.initialisation, name="join")(joined))
