"""Registries: who we are to them, how they are reached, what they hold, and pulls from them.

The protocol is the OCI distribution specification 1.1, with Docker's token authentication:
https://github.com/opencontainers/distribution-spec, https://distribution.github.io/distribution/.
Import from the modules: a pull's worker processes load only what they need.
"""
