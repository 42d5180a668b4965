"""The network, and how it is run over clips of any length and frames of any size."""
