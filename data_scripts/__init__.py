"""One script per data set: fetch, verify, lay out for `mvr index`. `python -m data_scripts` lists them."""
