"""minitl: transfer learning small enough to read whole and good enough to use.

The names are Keras's: `import minitl as keras`, and a Keras script runs.
"""
