"""What `scripts/compare_peers.py` compares: ways to make video four times larger."""
