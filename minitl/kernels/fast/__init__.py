"""The fast twins of the formulas."""
