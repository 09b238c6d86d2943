"""The suite in containers of images: `--sandbox-image`, and the marker `sandbox(image=…)`.

matrix      the plugin of pytest-xdist's controller: workers for each image, reports by image
scheduling  each image runs every test once, whatever xdist's --dist says within it
single      one test that a marker sends into an image, in a run without the option
image       what an image's Python has, and what has to be mounted for it
workplace   one worker's container, and the command that leads into it
stream      that command: standard streams of an exec in the container
bootstrap   the source that runs there before xdist's own
"""
