"""What a run's containers, images and snapshots cost, and the run as a page.

`events` is what is noted while tests run, `recording` notes it in each process that runs tests,
`collecting` brings it together in the process that reports, `run` is the whole as a value,
`durations` and `page` show it. Nothing here but `events` is loaded unless an option asks for it.
"""
