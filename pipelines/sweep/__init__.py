"""Several runs at once as one thing: its folder and file, its cells, what launches them."""
