"""Side-by-side measurements: this service, its peers, and the kernel's own price.

`python -m benchmarks` runs every scenario, prints a table and can save JSON. Layout, top down:
`__main__` (options), `scenarios/` (what is measured, and its goal), `peers/` (one module for each
thing measured), `alternate` (how runs are interleaved), `result` and `report` (what comes out).
"""
