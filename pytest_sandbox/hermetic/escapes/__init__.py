"""What a hermetic test did that its sandbox took in: the escape report.

`witness` puts it together in pytest's own process: `writes` walks the uppers of the overlays,
`leftovers` looks at processes and sockets, `watch` asks the `watcher`, a process of its own that
sees connections (through a `connection_filter`) and answers name `lookups`; `environment` alone
runs in the test's process. `summary` shows it, `settings` says how. PYTEST_DONT_REWRITE
"""
