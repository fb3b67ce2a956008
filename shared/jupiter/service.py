"""The one consume loop that every service runs.

CONTRACT (the implementation follows; see /work/lab/CONTRACT.md).
"""
