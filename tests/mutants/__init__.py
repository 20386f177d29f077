"""Mutants: small faults in a copy of the sources, which the tests must find."""
