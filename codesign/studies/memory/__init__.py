"""One training iteration behind many caches: the figures of the memory paper."""
