"""One script per data set: download, verify, and prepare for `mvr index`. `python -m data_scripts` lists them."""
