"""What a chip charges for training a network: each chip behind one `estimate`."""

from codesign.hardware import chips, memory, reram_gpu, roofline
from codesign.hardware.chip import Chip, door
from codesign.hardware.cost import Cost

__all__ = ["Chip", "Cost", "chips", "door", "memory", "reram_gpu", "roofline"]
