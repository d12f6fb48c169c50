"""What networks see of splats and images: numbers of about unit variance, and the way back."""
