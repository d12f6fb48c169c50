"""What is predicted, along which path, and how it is sampled; knows no network."""
