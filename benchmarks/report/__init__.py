"""``python -m benchmarks.report FILE…``: what was measured, on one page.

The page and its pictures are written beside this, unless another folder is
named.
"""
