"""Images from Dockerfiles: what is to be done, its cache keys, and all of it but running commands.

A command of RUN goes through `steps.StepRunner`, which the engine implements over the launcher; a
COPY writes straight into a new layer directory; the rest touches the config only. No tar archive
is made.
"""
