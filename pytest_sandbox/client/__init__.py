"""The Python client: what `pytest_sandbox.connect()` returns, module by module.

session     Client and connect: the calls that concern the whole service
container   Container: one container
volume      Volume
bind        Bind
snapshot    Recipe, Snapshot, Claim
options     the keywords that a container may be made with, and the request they become
results     what calls return
lease       the open connection that owns what was made
streams     output frames, attached programs
targets     paths and queries
transport   requests over kept-alive connections
connection  HTTP/1.1 on one unix socket

Import the names from `pytest_sandbox`; this split may change.
"""
