"""The fork server: warm slots, rootfs assembly, exec into a container.

Standard library and `sandboxd.linux` only. `spec` says what to start, `client` is the service's end
of the socket, `server` the fork server's main loop, `slot` what runs in a warm slot, `rootfs` the
mounts, `entry` the last steps before exec that create and exec share.
"""
