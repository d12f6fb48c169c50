"""What a trained run is used for: sampling, editing, animations, stores of samples."""
