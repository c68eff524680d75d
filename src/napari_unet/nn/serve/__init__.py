"""A network on this computer for others, by HTTP: `napari-unet serve`.

server       addresses, tokens and bodies of requests, with aiohttp
fair_queue   whose request comes next: that of each user in turn
service      from a request to its answer: models by their hash, tiles through the network
"""
