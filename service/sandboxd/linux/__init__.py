"""Thin typed system calls by ctypes, one module for each kernel facility.

Every failure passes one funnel, `syscalls.oserror`, and names the call and the path.
"""
