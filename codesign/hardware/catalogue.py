"""Named chips. Each number has its source, or `assumed` and a range."""

from codesign import units
from codesign.hardware.memory import MemorySpec
from codesign.hardware.parts.crossbar import CrossbarSpec
from codesign.hardware.reram_gpu import ReramGpuSpec
from codesign.hardware.roofline import RooflineSpec

CROSSBARS_PER_TILE = 96  # DeepTrain, Table I
TILES_PER_TIER = 36 * 4  # clusters x tiles; DeepTrain, Table I

# Thread-instructions of one element through batch norm, forward and backward, counted
# from Ioffe & Szegedy, ICML 2015 (Algorithm 1 and the gradients of Section 3). Forward,
# three loops: sum (load, add), variance (load, subtract, multiply-add), normalise
# (load, subtract, multiply, multiply-add, store): 10. Backward, two loops: the sums of
# dy and dy x_hat (2 loads, subtract, multiply, add, multiply-add), dx (2 loads,
# subtract, multiply, 2 multiply-adds, multiply, store): 14. And one address or loop
# instruction for each of the 9 loads and stores. assumed range 24 (unrolled) .. 60.
BN_INSTRUCTIONS_PER_ELEMENT = 33.0
# assumed: batch norm streams, so a Fermi core waits for memory; range 0.1..1.
GPU_UTILISATION = 0.5
# assumed: 250 W of a GeForce GTX 480 over 480 lanes at 1.4 GHz is 370 pJ with
# everything counted, about half of it not the cores'; range 50..400 pJ.
GPU_INSTRUCTION_ENERGY_J = 200 * units.PJ


def deeptrain(num_reram_tiers: int = 3, num_gpu_tiers: int = 1) -> ReramGpuSpec:
    """The DeepTrain stack with R ReRAM and G GPU tiers at its sourced priors.

    2R2G with a batch norm after every convolution is AccuReD.

    Raises:
        ValueError: If R or G is below 1 or R + G exceeds 4.
    """
    return ReramGpuSpec(
        num_reram_tiers=num_reram_tiers,
        num_gpu_tiers=num_gpu_tiers,
        crossbar=CrossbarSpec(
            read_time_s=100 * units.NS,  # 10 MHz; DeepTrain, Table I
            power_w=330 * units.MW / CROSSBARS_PER_TILE,  # DeepTrain, Table I
        ),
        crossbars_per_tier=TILES_PER_TIER * CROSSBARS_PER_TILE,
        gpu_tiles_per_tier=16,  # DeepTrain, Table I
        gpu_clock_hz=700 * units.MHZ,  # DeepTrain, Table I
        gpu_instructions_per_cycle=64,  # a Fermi core issues two warps of 32
        gpu_utilisation=GPU_UTILISATION,
        bn_instructions_per_element=BN_INSTRUCTIONS_PER_ELEMENT,
        gpu_instruction_energy_j=GPU_INSTRUCTION_ENERGY_J,
    ).checked()


def titan_xp() -> RooflineSpec:
    """NVIDIA Titan Xp (2017): data-sheet peaks; efficiencies assumed."""
    return RooflineSpec(
        peak_macs_per_s=3840 * 1.582 * units.GHZ,  # CUDA cores x boost clock, fp32
        compute_efficiency=0.5,  # assumed: cuDNN on 32x32 images; range 0.2..0.8
        bandwidth_bytes_per_s=547.6 * units.GB_PER_S,
        bandwidth_efficiency=0.8,  # assumed; range 0.6..0.9
        power_w=250.0,  # board power limit
    ).checked()


def _memory(
    capacity_mb: float,
    bandwidth_gb_per_s: float,
    tera_flops: float,
    value_bits: int = 32,
) -> MemorySpec:
    return MemorySpec(
        capacity_bytes=capacity_mb * units.MIB,
        bandwidth_bytes_per_s=bandwidth_gb_per_s * units.GB_PER_S,
        throughput_ops_per_s=tera_flops * units.TERA,
        value_bits=value_bits,
    ).checked()


# Last-level cache in MB, memory in GB/s, peak in TFLOP/s, the numbers of data sheets. The
# memory model charges a MAC one operation of this peak (Tsai 2021), where a data sheet
# counts two FLOPs, so its compute times are half of what the peak allows.
MEMORY_SYSTEMS = {
    # Tsai 2021, Table 5.2, where the LLC of the 2080 Ti stands as 55 for TU102's 5.5 MB
    # (NVIDIA Turing white paper, 2018).
    "i9-10980XE": _memory(24.75, 94, 2.765),
    "RTX 2080 Ti": _memory(5.5, 616, 13.45),
    "Radeon 6900 XT": _memory(128, 512, 23.04),
    "A100": _memory(40, 1555, 19.45),
    # NVIDIA H100 and H200 SXM data sheets (2023, 2024): FP32; L2 of the GH100 white paper.
    "H100": _memory(50, 3350, 67),
    "H200": _memory(50, 4800, 67),
    # AMD Instinct MI300X data sheet (2023): FP32 vector, Infinity Cache, HBM3.
    "MI300X": _memory(256, 5300, 163.4),
    # Google Cloud TPU v5e documentation: bfloat16 peak and HBM; 128 MB of vector memory
    # (Austin et al., "How to Scale Your Model", 2025).
    "TPU v5e": _memory(128, 819, 197, value_bits=16),
    # NVIDIA Jetson AGX Orin 64 GB data sheet (2022): 2048 lanes at 1.3 GHz, FP32; 4 MB L2.
    "Jetson AGX Orin": _memory(4, 204.8, 5.32),
}
