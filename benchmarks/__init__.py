"""What is measured: `python -m benchmarks GROUP|NAME...`."""
