"""Layers on sequences (N, T, ...): LSTM and GRU, and what wraps layers around time."""
