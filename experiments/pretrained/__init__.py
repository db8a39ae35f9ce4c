"""A frozen image network that was trained on ImageNet, as the encoder of a modality."""
