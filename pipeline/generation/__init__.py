"""Training, sampling and evaluation of generators on stores."""
