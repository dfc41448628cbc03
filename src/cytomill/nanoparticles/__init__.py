"""Nanoparticles in SBF-SEM stacks: intensity mixture, MAP posterior, labels, measurements."""
