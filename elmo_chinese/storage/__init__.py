"""What is kept on the disk: checkpoints, pretrained models, archives, vectors."""
