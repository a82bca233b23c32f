"""Files: Keras's models and weights, states, digests; written whole or not at all."""
