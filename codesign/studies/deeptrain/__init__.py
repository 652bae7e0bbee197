"""DeepTrain: which few batch norms a network needs on a stack of ReRAM and GPU tiers."""
