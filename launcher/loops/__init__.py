"""What a service does again and again beside its API: each part has a `tick` that does what is due."""
