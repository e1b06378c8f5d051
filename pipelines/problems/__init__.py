"""What a run can be about, a folder each."""
