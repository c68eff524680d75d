"""Models for other programs, and models of other programs.

bioimageio_export     a model as a bioimage.io package
package_description   what the package says of the model
foreign_import        a model that others built into the store
"""
