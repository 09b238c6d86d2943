"""Hermetic tests: each test process runs in namespaces of its own, over the host's root.

`settings` says what was asked for, `plan` what the sandbox looks like, `maker` prebuilds sandboxes
(`shell` is one, as pytest holds it), `zygote` forks the processes that tests run in (`child`), and
`loop` runs the session's items through them and replays what they report. PYTEST_DONT_REWRITE
"""
