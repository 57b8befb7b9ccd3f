"""What a network is and does."""
