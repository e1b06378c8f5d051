"""Weight codes: from a float matrix to integers and scales."""
