"""CompoDiff: a latent diffusion model draws the wanted picture's embedding.

network.py is the network, schedule.py the noise, sampler.py the sampling, composer.py turns queries into draws,
knobs.py holds the quality settings, and checkpoint.py reads and writes the published layout.
"""
