"""What JAX's primitives do to data: the vocabulary of the walk."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# One value of output for each of input.
POINTWISE = _names(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e
    cbrt ceil clamp clz complex conj convert cos cosh digamma div eq erf erf_inv erfc
    exp exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow is_finite
    le lgamma log log1p log2 logistic lt max min mul mulhi ne neg nextafter not
    one_minus_square or polygamma polynomial population_count pow real
    regularized_incomplete_beta rem round rsqrt select_n shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh sqrt square sub tan tanh
    xor zeta"""
)
REDUCTIONS = _names(
    """argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum
    reduce_xor"""
)
RUNNING = _names("cumlogsumexp cummax cummin cumprod cumsum")
SCATTERS = _names(
    """dynamic_update_slice scatter scatter-add scatter-max scatter-min scatter-mul
    scatter_add scatter_max scatter_min scatter_mul scatter-sub
    scatter_sub"""
)
POOLS = {
    "reduce_window_max": "max",
    "reduce_window_min": "min",
    "reduce_window_sum": "sum",
    "reduce_window": "window",
}
RANDOM = _names(
    """random_bits random_clone random_fold_in random_gamma random_seed random_split
    random_unwrap random_wrap rng_bit_generator rng_uniform threefry2x32"""
)
CALLS = _names(
    """call checkpoint closed_call composite core_call custom_jvp_call
    custom_vjp_call     custom_vjp_call_jaxpr jit pjit remat remat2 shard_map"""
)

# Functions that are a layer when they stand under a `jit` of their name, as those of
# `jax.nn` do: kind and variant.
LAYERS = {
    name: ("activation", name)
    for name in _names(
        """celu elu gelu hard_sigmoid hard_tanh leaky_relu log_sigmoid mish relu
    relu6 selu sigmoid silu soft_sign softplus sparse_plus squareplus tanh"""
    )
} | {
    "hard_silu": ("activation", "hard_swish"),
    "hard_swish": ("activation", "hard_swish"),
    "log_softmax": ("softmax", "log"),
    "logistic": ("activation", "sigmoid"),
    "softmax": ("softmax", ""),
    "swish": ("activation", "silu"),
}
# Point-wise steps that make a chain an activation rather than scaling and shifting.
NONLINEAR = _names(
    """abs atan2 clamp cos erf erf_inv erfc exp exp2 expm1 log log1p log2 logistic max min
    select_n sign sin tan tanh"""
)
