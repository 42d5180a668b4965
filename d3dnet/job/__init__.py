"""A video made larger: in segments that survive a break, by one process or by many."""
