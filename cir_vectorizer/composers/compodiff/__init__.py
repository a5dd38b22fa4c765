"""CompoDiff: a latent diffusion model draws the wanted picture's embedding.

network.py is the network, schedule.py the noise, sampler.py the sampling, composer.py what a query becomes,
checkpoint.py the published layout.
"""
