"""Models for other programs, and models of other programs.

bioimageio_export   a model as a bioimage.io package
foreign_import      a model that others built into the store
"""
