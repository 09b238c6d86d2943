"""tox environments in containers: `runner = sandbox`. See docs/tox.md.

An environment's interpreter and installed packages are image layers, shared between environments
and projects; its commands run in a fresh container over them, the project copy-on-write.

plugin      what tox loads: the runners, the option
runner      a run environment, by virtualenv and pip; uv_runner by tox-uv
settings    the keys of an environment, and the services that its factors name
executor    tox's commands, run in containers
job         what tox takes for a process
layers      what is installed already, and who installs the rest
installing  an install command taken apart: what its outcome depends on, and what it resolves to
resolving   what such a command resolves to, asked beforehand or afterwards
enclosure   the containers of one environment: what they see, and where commands are looked up
"""
