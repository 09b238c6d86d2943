"""The fork server: warm slots, rootfs assembly, exec into a container.

Standard library and `sandboxd.linux` only. From the outside in: `spec` says what to start, `client`
is the service's end of the socket, `server` the fork server's main loop, `slot` the life of a warm
slot, `rootfs` the order of the mounts (`operations`, `host_root`, `kernel_mounts` the mounts
themselves), `entry` the last steps before exec that create and exec share.
"""
