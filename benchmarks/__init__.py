"""Penstock against plain loops, stock Beam, Ray Data, Daft and ADBC, side by side on this machine.

`python -m benchmarks --help` says how; `benchmarks/RESULTS.md` holds what was recorded last.
"""
