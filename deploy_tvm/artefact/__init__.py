"""Built programs on disk, and what runs them."""
