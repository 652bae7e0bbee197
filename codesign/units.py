"""SI prefixes and a few derived units, for writing constants down: `1.6 * units.PJ`."""

KILO, MEGA, GIGA, TERA = 1e3, 1e6, 1e9, 1e12
KIB, MIB, GIB = 2**10, 2**20, 2**30  # bytes

NS, US, MS = 1e-9, 1e-6, 1e-3  # seconds
PJ, NJ, UJ = 1e-12, 1e-9, 1e-6  # joules
MW = 1e-3  # watts; a milliwatt
MHZ, GHZ = 1e6, 1e9  # hertz
GB_PER_S = 1e9  # bytes per second, decimal
UM2, MM2 = 1e-12, 1e-6  # square metres
