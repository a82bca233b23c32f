"""minitl beside Keras, both running, on the same numbers."""
