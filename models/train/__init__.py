"""Training and measuring of the project's own detection models; see README.md."""
