"""The networks: generator, discriminator, and the deformation they work through."""
