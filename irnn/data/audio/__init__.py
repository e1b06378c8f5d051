"""Audio: reading it, features, their cache, augmentation; what every corpus of recordings is made of."""
