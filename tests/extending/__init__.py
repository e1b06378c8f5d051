"""What somebody else would add, as docs/extending.md shows it."""
