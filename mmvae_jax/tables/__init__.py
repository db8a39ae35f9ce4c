"""Tables: a user's arrays, one per modality, and their conversion to the model's inputs."""
