"""Array kernels: arrays in, arrays out; no I/O, no MPI, no configuration."""
