"""Models on disk.

card            the model card, `model.json`
card_entries    what its entries may hold, checked when it is read
folder          a model's folder: weights, card, picture, rehearsal set
store           models by name, the package's and the user's; ancestors and descendants
upkeep          the user's models renamed, deleted, brought back
own_record      what a user adds to a model: a note, scores of own evaluations
archive         models as .zip files, imported and exported
foreign_folder  a folder whose network others built
bioimageio      packages of bioimage.io: their descriptions and files
package_network what of their networks can be run
output_meaning  what the output of a network that others built means
package_files   packages fetched by address and unpacked
"""
