"""The costs of posixshm: python -m benchmarks [NAME], see README.md."""
