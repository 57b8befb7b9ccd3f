"""What was run, and what it should have given."""
