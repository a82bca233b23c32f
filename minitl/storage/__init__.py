"""Files: Keras's weights (`keras_weights.py`) and models, states, digests; written whole or not."""
