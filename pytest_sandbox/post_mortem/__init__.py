"""What is kept of failed tests, so that their state can be entered and run again.

`shelf` is the directory of kept states, bounded; `state` what one of them says about its test;
`copying` brings upper directories there. `keeper` keeps hermetic tests, `containers` those whose
fixtures have containers; `entering` builds a sandbox over a kept state, and `rerun` a command line
that runs the test again. PYTEST_DONT_REWRITE
"""
